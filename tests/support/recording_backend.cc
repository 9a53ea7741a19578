#include "tests/support/recording_backend.h"

namespace strata::test {

using kernels::Buffer;
using kernels::Deltas;
using kernels::LayerWeights;

namespace {

std::vector<std::uint32_t> ids(const LayerWeights& w) {
  return {w.attn_norm.id, w.q_weight.id,      w.q_bias.id,     w.k_weight.id,   w.k_bias.id,
          w.v_weight.id,  w.v_bias.id,        w.sinks.id,      w.out_weight.id, w.out_bias.id,
          w.mlp_norm.id,  w.router_weight.id, w.router_bias.id};
}

}  // namespace

void RecordingBackend::record(const char* stage, const StepShape& shape, LayerId layer,
                              std::vector<const void*> pointers, std::vector<std::uint32_t> weights,
                              std::int32_t first, std::int32_t count) {
  recording_.push_back(
      {stage, shape, layer, std::move(pointers), std::move(weights), first, count});
}

void RecordingBackend::embed(const StepShape& shape, kernels::WeightHandle embedding, Buffer x) {
  record("embed", shape, -1, {x.data}, {embedding.id});
  inner_->embed(shape, embedding, x);
}

void RecordingBackend::attn_qkv(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                                Buffer x, const Deltas& deltas, Buffer q) {
  record("attn_qkv", shape, layer, {x.data, deltas.a.data, deltas.b.data, q.data}, ids(weights));
  inner_->attn_qkv(shape, layer, weights, x, deltas, q);
}

void RecordingBackend::attend(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                              Buffer q, Buffer attn) {
  record("attend", shape, layer, {q.data, attn.data}, ids(weights));
  inner_->attend(shape, layer, weights, q, attn);
}

void RecordingBackend::attn_out(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                                Buffer attn, Buffer delta) {
  record("attn_out", shape, layer, {attn.data, delta.data}, ids(weights));
  inner_->attn_out(shape, layer, weights, attn, delta);
}

void RecordingBackend::route(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                             Buffer x, const Deltas& deltas) {
  record("route", shape, layer, {x.data, deltas.a.data, deltas.b.data}, ids(weights));
  inner_->route(shape, layer, weights, x, deltas);
}

void RecordingBackend::experts(const StepShape& shape, LayerId layer, Buffer delta) {
  record("experts", shape, layer, {delta.data});
  inner_->experts(shape, layer, delta);
}

void RecordingBackend::experts_host(const StepShape& shape, LayerId layer, Buffer delta) {
  record("experts_host", shape, layer, {delta.data});
  inner_->experts_host(shape, layer, delta);
}

void RecordingBackend::head(const StepShape& shape, const kernels::ModelWeights& weights, Buffer x,
                            const Deltas& deltas, std::int32_t first, std::int32_t count) {
  record("head", shape, -1, {x.data, deltas.a.data, deltas.b.data},
         {weights.unembedding.id, weights.final_norm.id}, first, count);
  inner_->head(shape, weights, x, deltas, first, count);
}

void RecordingBackend::sample(const StepShape& shape, std::int32_t first, std::int32_t count) {
  record("sample", shape, -1, {}, {}, first, count);
  inner_->sample(shape, first, count);
}

void RecordingBackend::cut(kernels::CutPoint point, LayerId layer) {
  record(point == kernels::CutPoint::kAfterRoute ? "cut after route" : "cut before sample", {},
         layer, {});
  inner_->cut(point, layer);
}

void RecordingComm::all_reduce(void* data, std::size_t count) {
  RecordedCall call;
  call.stage = "all_reduce";
  call.pointers = {data};
  call.count = static_cast<std::int64_t>(count);
  recording_.push_back(std::move(call));
}

}  // namespace strata::test
