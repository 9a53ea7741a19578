// MemoryPlan: every large allocation by name, computed before anything is allocated. The same
// function decides what `serve` allocates and what `strata plan` prints. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/model_config.h"
#include "base/result.h"
#include "kernels/stages.h"
#include "plan/step_plan.h"

namespace strata {

// The card that computes, with its own memory.
struct CardMemory {
  std::int64_t total_bytes = 0;
  std::int64_t free_bytes = 0;
  std::int64_t limit_bytes = 0;  // 0: by utilization
  double utilization = 0;        // of total_bytes; 0: what others can be expected to leave
};

struct PlanRequest {
  ModelConfig config;
  std::int32_t max_model_len = 0;  // 0: as much as memory and the model allow
  std::int32_t max_num_seqs = 8;
  std::int32_t max_num_batched_tokens = 256;
  std::int32_t page_tokens = 16;
  KvDtype kv_dtype = KvDtype::kF32;
  kernels::WeightFormat dense = kernels::WeightFormat::kBf16;
  std::int64_t memory_limit_bytes = 0;  // 0: what is available now
  std::int64_t available_bytes = 0;     // of the machine: MemAvailable and cgroup limit
  std::int64_t swap_space_bytes = 0;    // host pool for swapped KV pages
  double utilization = 0.92;            // of available_bytes, for KV
  bool tensor_cores = false;            // of the card
  std::optional<CardMemory> card;       // none: the model computes on the CPU
};

struct PlanLine {
  std::string name;   // the HostBuffer site: "weights.experts", "kv.pool", ...
  std::string place;  // "RAM", "VRAM", "disk"
  std::int64_t bytes = 0;
  std::string note;
};

struct MemoryPlan {
  std::vector<PlanLine> lines;
  std::int64_t total_bytes = 0;  // where the model computes: RAM, or VRAM of a card
  std::int64_t limit_bytes = 0;
  std::int32_t max_model_len = 0;
  std::int32_t max_num_seqs = 0;
  kernels::WeightFormat dense = kernels::WeightFormat::kBf16;
  std::int64_t page_bytes = 0;      // one page of one group
  kernels::BackendOptions backend;  // sizes to prepare() with
};

// Fails with the exact shortfall and the flag that fixes it.
Result<MemoryPlan> make_memory_plan(const PlanRequest& request);

// What make_card_plan may choose instead of what is asked for.
struct PlanFreedom {
  bool dense = false;      // int8 instead of bf16
  bool step_size = false;  // fewer tokens and sequences of a step
};

// The first plan on the card, from what is asked for to smaller ones, whose context is long enough;
// else the one with the longest. REQUIRES request.card.
Result<MemoryPlan> make_card_plan(const PlanRequest& request, const PlanFreedom& free);

std::string format_plan(const MemoryPlan& plan);  // a table for people
std::string plan_json(const MemoryPlan& plan);

// MemAvailable limited by the cgroup, in bytes.
std::int64_t available_memory_bytes();

}  // namespace strata
