#include "model/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "base/json.h"
#include "kernels/cuda/cuda_layout.h"
#include "kernels/slab.h"

namespace strata {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int32_t kAutoLenStep = 1024;  // --max-model-len auto is a multiple of this
constexpr std::int64_t kCardReserve = 256 * kMiB;

// Weights that are not experts, as the CPU backend keeps them: matrices in bf16 or int8 (whose rows
// lie in tiles of 16, a byte a weight and two a group of 32), vectors in float32. Embedding and
// router stay in bf16.
std::int64_t dense_bytes(const ModelConfig& c, kernels::WeightFormat format) {
  const auto matrix = [format](std::int64_t rows, std::int64_t k) {
    if (format != kernels::WeightFormat::kI8g32) return rows * k * 2;
    return (rows + 15) / 16 * 16 * (k + k / 32 * 2);
  };
  const std::int64_t hidden = c.hidden;
  const std::int64_t matrices =
      matrix(c.q_dim(), hidden) + 2 * matrix(c.kv_dim(), hidden) + matrix(hidden, c.q_dim());
  const std::int64_t router = (hidden + 1) * c.num_experts;
  const std::int64_t vectors = 2 * hidden + c.qkv_dim() + hidden + c.num_q_heads;
  const std::int64_t layer = matrices + router * 4 + vectors * 4;
  return layer * c.num_layers + matrix(c.vocab, hidden) + std::int64_t{c.vocab} * hidden * 2 +
         hidden * 4;
}

std::int64_t expert_bytes(const ModelConfig& c) {
  const auto slab = kernels::make_slab_layout(c.hidden, c.intermediate, c.expert_format);
  return static_cast<std::int64_t>(slab.bytes) * c.num_experts * c.num_layers;
}

// Residual stream, deltas, queries, attention, routed rows and logits of the largest step.
std::int64_t activation_bytes(const PlanRequest& r) {
  const ModelConfig& c = r.config;
  const std::int64_t rows = r.max_num_batched_tokens;
  const std::int64_t per_row = 5 * std::int64_t{c.hidden} + 3 * std::int64_t{c.qkv_dim()} +
                               std::int64_t{c.experts_per_token} *
                                   (2 * std::int64_t{c.intermediate} + std::int64_t{c.hidden});
  const std::int64_t logits = std::int64_t{kernels::kMaxHeadRows} * c.vocab;
  return (rows * per_row + logits) * 4 + 16 * kMiB;
}

struct KvShape {
  std::int64_t page_bytes = 0;
  std::int64_t window_pages = 0;  // most pages a sequence holds in the window group
  bool full = false;
  bool window = false;
  std::int32_t page_tokens = 16;

  std::int64_t pages_for(std::int64_t tokens) const {
    const std::int64_t all = (tokens + page_tokens - 1) / page_tokens;
    return (full ? all : 0) + (window ? std::min(all, window_pages) : 0);
  }
};

KvShape kv_shape(const PlanRequest& r) {
  const ModelConfig& c = r.config;
  const auto windowed =
      static_cast<std::int64_t>(std::count(c.windowed.begin(), c.windowed.end(), true));
  const std::int64_t full = c.num_layers - windowed;
  KvShape shape;
  shape.page_tokens = r.page_tokens;
  shape.full = full > 0;
  shape.window = windowed > 0;
  const std::int64_t element = r.kv_dtype == KvDtype::kF32 ? 4 : 2;
  shape.page_bytes =
      std::int64_t{r.page_tokens} * std::max(full, windowed) * 2 * c.kv_dim() * element;
  // Window, the step's own rows, and a page's slack on both sides; two steps may be in flight.
  const std::int64_t in_window = c.window + 2 * std::int64_t{r.max_num_batched_tokens};
  shape.window_pages = in_window / r.page_tokens + 2;
  return shape;
}

std::string mib(std::int64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / static_cast<double>(kMiB));
}

Unexpected too_small(std::int64_t need, std::int64_t have, const std::string& what,
                     const std::string& fix) {
  return fail(ErrorCode::kInsufficientMemory,
              fmt::format("{} needs {} but {} is available: {} short. {}", what, mib(need),
                          mib(have), mib(need - have), fix));
}

// The longest context one sequence can have with `pages` pages.
std::int64_t tokens_that_fit(const KvShape& kv, std::int64_t pages, std::int64_t most) {
  std::int64_t low = 0;
  std::int64_t high = most;
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (kv.pages_for(middle) <= pages) low = middle;
    else high = middle - 1;
  }
  return low;
}

// Sizes to prepare() a backend with, for `pages` KV pages and sequences of up to `length` tokens.
kernels::BackendOptions backend_options(const PlanRequest& r, std::int64_t length,
                                        std::int64_t pages, std::int64_t page_bytes) {
  kernels::BackendOptions options;
  options.max_rows = r.max_num_batched_tokens;
  options.max_slots = r.max_num_seqs;
  options.max_logits_rows = r.max_num_batched_tokens;
  options.page_tokens = r.page_tokens;
  options.num_pages = static_cast<std::int32_t>(pages);
  options.num_swap_pages = static_cast<std::int32_t>(r.swap_space_bytes / page_bytes);
  options.max_pages_per_seq =
      static_cast<std::int32_t>((length + r.page_tokens - 1) / r.page_tokens + 1);
  options.kv_dtype = r.kv_dtype;
  options.tensor_cores = r.tensor_cores;
  return options;
}

// What there is where the model computes, and what it takes beside the KV pool.
struct Budget {
  const char* place = "RAM";
  std::int64_t limit = 0;
  std::int64_t dense = 0;
  std::int64_t activations = 0;
  std::int64_t swap = 0;
  std::int64_t reserve = 0;
  std::int64_t least_kv_room = 0;  // KV may take so much of the limit unasked

  std::int64_t fixed(std::int64_t experts) const {
    return experts + dense + activations + swap + reserve;
  }
};

std::int64_t share(std::int64_t bytes, double part) {
  return static_cast<std::int64_t>(static_cast<double>(bytes) * part);
}

std::int64_t host_limit(const PlanRequest& r) {
  return r.memory_limit_bytes > 0 ? r.memory_limit_bytes : share(r.available_bytes, r.utilization);
}

// Without a wish, KV takes what all sequences could use, at most a quarter of the machine: the rest
// of it is other programs' and the page cache's.
Budget host_budget(const PlanRequest& r) {
  Budget budget;
  budget.limit = host_limit(r);
  budget.dense = dense_bytes(r.config, r.dense);
  budget.activations = activation_bytes(r);
  budget.swap = r.swap_space_bytes;
  budget.least_kv_room = std::max(budget.limit / 4, 256 * kMiB);
  return budget;
}

// The buffers' sizes with page tables of the longest context: at most what will be allocated.
std::int64_t card_activation_bytes(const PlanRequest& r) {
  const std::int64_t most = r.config.max_context;
  const auto layout =
      kernels::cuda::make_activation_layout(r.config, backend_options(r, most, 0, 1));
  return static_cast<std::int64_t>(layout.bytes) + kMiB;
}

// Unasked, a desktop and other programs keep what they usually need, on small cards too.
std::int64_t card_wish(const CardMemory& card) {
  constexpr double kShare = 0.92;
  constexpr std::int64_t kForOthers = 768 * kMiB;
  if (card.limit_bytes > 0) return card.limit_bytes;
  if (card.utilization > 0) return share(card.total_bytes, card.utilization);
  return std::max(share(card.total_bytes, kShare), card.total_bytes - kForOthers);
}

// The card is the model's: KV may take all that is left.
Budget card_budget(const PlanRequest& r, const CardMemory& card) {
  Budget budget;
  budget.place = "VRAM";
  budget.limit = std::min(card_wish(card), card.free_bytes);
  budget.dense = static_cast<std::int64_t>(kernels::cuda::dense_weight_bytes(r.config, r.dense));
  budget.activations = card_activation_bytes(r);
  budget.reserve = kCardReserve;
  budget.least_kv_room = budget.limit;
  return budget;
}

// Main memory of a model that computes on a card.
std::vector<PlanLine> host_lines_beside_card(const PlanRequest& r, std::int64_t experts) {
  std::vector<PlanLine> lines = {
      {"weights.experts", "RAM", experts, "what the card's slabs are copied from"},
      {"weights.embedding", "RAM",
       static_cast<std::int64_t>(kernels::cuda::embedding_bytes(r.config)),
       "page-locked: the card reads rows of it"},
      {"activations", "RAM", std::int64_t{kernels::kMaxHeadRows} * r.config.vocab * 4 + 16 * kMiB,
       "logits and step inputs, page-locked"}};
  if (r.swap_space_bytes > 0)
    lines.push_back({"kv.swap", "RAM", r.swap_space_bytes, "pages of waiting sequences"});
  return lines;
}

std::vector<PlanLine> plan_lines(const PlanRequest& r, const Budget& budget, std::int64_t experts,
                                 std::int64_t pages, std::int64_t page_bytes) {
  const std::int64_t slabs = std::int64_t{r.config.num_experts} * r.config.num_layers;
  std::vector<PlanLine> lines = {
      {"weights.experts", budget.place, experts,
       fmt::format("{} slabs of {}", slabs, mib(experts / slabs))},
      {"weights.dense", budget.place, budget.dense,
       r.dense == kernels::WeightFormat::kI8g32
           ? "attention and unembedding in int8, the rest in bf16"
           : (r.card ? "attention, router, unembedding"
                     : "attention, router, embedding, unembedding")},
      {"kv.pool", budget.place, pages * page_bytes,
       fmt::format("{} pages of {} tokens, {}", pages, r.page_tokens,
                   r.kv_dtype == KvDtype::kF32 ? "float32" : "bfloat16")},
      {"activations", budget.place, budget.activations,
       fmt::format("steps of up to {} tokens", r.max_num_batched_tokens)},
  };
  if (budget.swap > 0)
    lines.push_back({"kv.swap", budget.place, budget.swap, "pages of waiting sequences"});
  if (budget.reserve > 0)
    lines.push_back({"reserve", budget.place, budget.reserve, "kernels and recorded graphs"});
  return lines;
}

}  // namespace

Result<MemoryPlan> make_memory_plan(const PlanRequest& r) {
  const std::int64_t experts = expert_bytes(r.config);
  const Budget budget = r.card ? card_budget(r, *r.card) : host_budget(r);
  const std::int64_t fixed = budget.fixed(experts);
  const std::int64_t limit = budget.limit;
  const KvShape kv = kv_shape(r);
  const std::int64_t smallest = fixed + (kv.pages_for(r.page_tokens) + 1) * kv.page_bytes;
  if (smallest > limit)
    return too_small(smallest, limit, r.card ? "the model on the card" : "the model",
                     r.card ? "--backend cpu computes it in main memory."
                            : "Use a smaller model or add memory.");
  std::vector<PlanLine> beside;
  if (r.card) {
    beside = host_lines_beside_card(r, experts);
    std::int64_t needed = 0;
    for (const PlanLine& line : beside) needed += line.bytes;
    if (needed > host_limit(r))
      return too_small(needed, host_limit(r), "loading the model", "Add main memory.");
  }

  const std::int64_t kv_room = limit - fixed, one_page = kv.page_bytes;
  const std::int64_t modest = std::min(kv_room, budget.least_kv_room);
  std::int64_t length = r.max_model_len;
  if (length > r.config.max_context)
    return invalid(fmt::format("--max-model-len {} exceeds the model's {} positions", length,
                               r.config.max_context),
                   "max-model-len");
  if (length <= 0) {
    length = tokens_that_fit(kv, modest / one_page - 1, r.config.max_context);
    if (length > kAutoLenStep) length = length / kAutoLenStep * kAutoLenStep;
  }
  const std::int64_t for_one = kv.pages_for(length) + 1;
  if (for_one * one_page > kv_room) {
    const std::int64_t fits = tokens_that_fit(kv, kv_room / one_page - 1, r.config.max_context);
    return too_small(for_one * one_page, kv_room, fmt::format("a context of {} tokens", length),
                     fmt::format("Use --max-model-len {} or less.", fits));
  }
  const std::int64_t for_all = kv.pages_for(length) * r.max_num_seqs + 1;
  const std::int64_t pages = std::min(for_all, std::max(for_one, modest / one_page));
  if (pages > std::numeric_limits<std::int32_t>::max())
    return invalid("the KV pool has too many pages; use a larger --block-size", "block-size");

  MemoryPlan plan;
  plan.limit_bytes = limit;
  plan.max_model_len = static_cast<std::int32_t>(length);
  plan.max_num_seqs = r.max_num_seqs;
  plan.dense = r.dense;
  plan.page_bytes = one_page;
  plan.lines = plan_lines(r, budget, experts, pages, one_page);
  for (const PlanLine& line : plan.lines) plan.total_bytes += line.bytes;
  plan.lines.insert(plan.lines.end(), beside.begin(), beside.end());

  plan.backend = backend_options(r, length, pages, one_page);
  return plan;
}

Result<MemoryPlan> make_card_plan(const PlanRequest& request, const PlanFreedom& free) {
  constexpr std::int32_t kLongEnough = 32768;
  struct Size {
    std::int32_t rows, seqs;
  };
  std::vector<Size> sizes = {{request.max_num_batched_tokens, request.max_num_seqs}};
  if (free.step_size) sizes.insert(sizes.end(), {{512, 32}, {256, 8}, {128, 4}});
  std::vector<kernels::WeightFormat> formats = {request.dense};
  if (free.dense) formats = {kernels::WeightFormat::kBf16, kernels::WeightFormat::kI8g32};

  std::optional<Result<MemoryPlan>> best;
  PlanRequest smaller = request;
  for (const kernels::WeightFormat format : formats) {
    for (const Size& size : sizes) {
      smaller.dense = format;
      smaller.max_num_batched_tokens = size.rows;
      smaller.max_num_seqs = size.seqs;
      Result<MemoryPlan> plan = make_memory_plan(smaller);
      if (!plan) {
        if (!best || !*best) best = std::move(plan);  // the shortfall of the smallest
        continue;
      }
      if (request.max_model_len > 0 ||
          plan->max_model_len >= std::min(kLongEnough, request.config.max_context))
        return plan;
      const bool longest = !best || !*best || plan->max_model_len > (*best)->max_model_len;
      if (longest) best = std::move(plan);
    }
  }
  return std::move(*best);
}

std::string format_plan(const MemoryPlan& plan) {
  std::string out;
  for (const PlanLine& line : plan.lines)
    out +=
        fmt::format("{:<18} {:<5} {:>14}  {}\n", line.name, line.place, mib(line.bytes), line.note);
  const bool on_card = !plan.lines.empty() && plan.lines.front().place == "VRAM";
  out += fmt::format("{:<18} {:<5} {:>14}  of {} allowed\n", "total", on_card ? "VRAM" : "",
                     mib(plan.total_bytes), mib(plan.limit_bytes));
  out += fmt::format("context {} tokens, up to {} sequences at once\n", plan.max_model_len,
                     plan.max_num_seqs);
  return out;
}

std::string plan_json(const MemoryPlan& plan) {
  std::string out = "{\"allocations\":[";
  for (std::size_t i = 0; i < plan.lines.size(); ++i) {
    const PlanLine& line = plan.lines[i];
    out += i == 0 ? "{\"name\":" : ",{\"name\":";
    append_json_string(out, line.name);
    out += ",\"place\":";
    append_json_string(out, line.place);
    out += fmt::format(",\"bytes\":{},\"note\":", line.bytes);
    append_json_string(out, line.note);
    out += "}";
  }
  out += fmt::format(
      "],\"total_bytes\":{},\"limit_bytes\":{},\"max_model_len\":{},\"max_num_seqs\":{},"
      "\"kv_pages\":{},\"page_tokens\":{}}}",
      plan.total_bytes, plan.limit_bytes, plan.max_model_len, plan.max_num_seqs,
      plan.backend.num_pages, plan.backend.page_tokens);
  return out;
}

std::int64_t available_memory_bytes() {
  std::int64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    long long kib = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %lld kB", &kib) == 1) available = kib * 1024;
  }
  std::int64_t limit = 0;
  std::int64_t used = 0;
  std::ifstream cgroup_max("/sys/fs/cgroup/memory.max");  // "max" when unlimited
  std::ifstream cgroup_used("/sys/fs/cgroup/memory.current");
  if (cgroup_max >> limit && cgroup_used >> used)
    available = std::min(available, std::max<std::int64_t>(limit - used, 0));
  return available;
}

}  // namespace strata
