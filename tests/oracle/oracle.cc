#include "tests/oracle/oracle.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace strata::oracle {

Vector log_softmax(const Vector& logits) {
  const double best = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (const double logit : logits) total += std::exp(logit - best);
  Vector out;
  for (const double logit : logits) out.push_back(logit - best - std::log(total));
  return out;
}

Vector Oracle::norm(const Vector& x, const std::string& weight) const {
  const double eps = is(Mutation::kEpsSmall) ? 1e-6 : static_cast<double>(config_.rms_eps);
  double mean = 0.0;
  for (const double value : x) mean += value * value / static_cast<double>(x.size());
  const float* scale = tensor(weight).row(0);
  Vector out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] / std::sqrt(mean + eps) * scale[i];
  return out;
}

// name.weight times x, plus name.bias if asked.
Vector Oracle::linear(const Vector& x, const std::string& name, bool bias) const {
  const Tensor& weight = tensor(name + ".weight");
  const std::int64_t rows = static_cast<std::int64_t>(weight.values.size()) / weight.cols;
  Vector out(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = weight.row(r);
    double sum = bias ? tensor(name + ".bias").row(0)[r] : 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
    out[static_cast<std::size_t>(r)] = sum;
  }
  return out;
}

void Oracle::rotate(Vector& heads, std::int64_t position) const {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  for (std::size_t head = 0; head < heads.size(); head += dim) {
    for (std::size_t i = 0; i < dim / 2; ++i) {
      const double angle = static_cast<double>(position) * rope_.inv_freq[i];
      const double cosine = std::cos(angle) * rope_.concentration;
      const double sine = std::sin(angle) * rope_.concentration;
      const bool pairs = is(Mutation::kRopeInterleaved);
      double& a = heads[head + (pairs ? 2 * i : i)];
      double& b = heads[head + (pairs ? 2 * i + 1 : i + dim / 2)];
      const double first = a;
      a = first * cosine - b * sine;
      b = b * cosine + first * sine;
    }
  }
}

bool Oracle::is_windowed(LayerId layer) const {
  const bool windowed = config_.windowed[static_cast<std::size_t>(layer)];
  if (is(Mutation::kWindowOff)) return false;
  return is(Mutation::kWindowOnOddLayers) ? !windowed : windowed;
}

Vector Oracle::attend_head(const Vector& q, std::span<const Vector> k, std::span<const Vector> v,
                           std::int32_t q_head, std::int32_t kv_head, double sink) const {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  const std::size_t q_at = static_cast<std::size_t>(q_head) * dim;
  const std::size_t kv_at = static_cast<std::size_t>(kv_head) * dim;
  Vector scores;
  for (const Vector& key : k) {
    double score = 0.0;
    for (std::size_t i = 0; i < dim; ++i) score += q[q_at + i] * key[kv_at + i];
    scores.push_back(score / std::sqrt(static_cast<double>(dim)));
  }
  if (!is(Mutation::kSinksOff)) scores.push_back(sink);
  const Vector weights = log_softmax(scores);
  Vector out(dim, 0.0);
  for (std::size_t t = 0; t < v.size(); ++t)
    for (std::size_t i = 0; i < dim; ++i) out[i] += std::exp(weights[t]) * v[t][kv_at + i];
  return out;
}

// What the attention block adds to the residual stream of every token.
Matrix Oracle::attention(LayerId layer, const Matrix& x) const {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attn = prefix + "self_attn.";
  Matrix q, k, v;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Vector normed = norm(x[t], prefix + "input_layernorm.weight");
    q.push_back(linear(normed, attn + "q_proj", !is(Mutation::kNoQueryBias)));
    k.push_back(linear(normed, attn + "k_proj", !is(Mutation::kNoKeyBias)));
    v.push_back(linear(normed, attn + "v_proj", !is(Mutation::kNoValueBias)));
    rotate(q.back(), static_cast<std::int64_t>(t));
    rotate(k.back(), static_cast<std::int64_t>(t));
  }
  std::size_t window = x.size();
  if (is_windowed(layer)) {
    window = static_cast<std::size_t>(config_.window);
    if (is(Mutation::kWindowMinusOne)) --window;
    if (is(Mutation::kWindowPlusOne)) ++window;
  }
  const std::int32_t heads = config_.num_q_heads;
  Matrix out;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const std::size_t first = t + 1 > window ? t + 1 - window : 0;
    const std::span<const Vector> keys(k.data() + first, t + 1 - first);
    const std::span<const Vector> values(v.data() + first, t + 1 - first);
    Vector joined;
    for (std::int32_t head = 0; head < heads; ++head) {
      const std::int32_t kv_head = is(Mutation::kKvHeadModulo)
                                       ? head % config_.num_kv_heads
                                       : head / (heads / config_.num_kv_heads);
      const std::int32_t sink_head = is(Mutation::kSinksWrongHead) ? (head + 1) % heads : head;
      const double sink = tensor(attn + "sinks").row(0)[sink_head];
      const Vector part = attend_head(q[t], keys, values, head, kv_head, sink);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    out.push_back(linear(joined, attn + "o_proj", !is(Mutation::kNoOutBias)));
  }
  return out;
}

// Chosen experts and their weights.
std::vector<std::pair<std::int32_t, double>> Oracle::choose(const Vector& logits,
                                                            OracleOutput& out) const {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t e) { return logits[static_cast<std::size_t>(e)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  auto k = static_cast<std::size_t>(config_.experts_per_token);
  if (is(Mutation::kTopKMinusOne)) --k;
  if (k < order.size())
    out.smallest_router_gap =
        std::min(out.smallest_router_gap, logit(order[k - 1]) - logit(order[k]));
  if (!is(Mutation::kSoftmaxBeforeTopK)) order.resize(k);
  double total = 0.0;
  for (const std::int32_t e : order) total += std::exp(logit(e) - logit(order[0]));
  std::vector<std::pair<std::int32_t, double>> chosen;
  for (std::size_t i = 0; i < k; ++i)
    chosen.emplace_back(order[i], std::exp(logit(order[i]) - logit(order[0])) / total);
  return chosen;
}

Vector Oracle::expert(const std::string& prefix, std::int32_t index, const Vector& x,
                      OracleOutput& out) const {
  const Tensor& gate_up = tensor(prefix + "gate_up_proj");
  const Tensor& down = tensor(prefix + "down_proj");
  const float* gate_up_bias = tensor(prefix + "gate_up_proj_bias").row(index);
  const float* down_bias = tensor(prefix + "down_proj_bias").row(index);
  const std::int64_t inner = config_.intermediate;
  const auto value = [&](std::int64_t row) {
    const float* weights = gate_up.row(index * 2 * inner + row);
    double sum = is(Mutation::kNoGateUpBias) ? 0.0 : gate_up_bias[row];
    for (std::size_t i = 0; i < x.size(); ++i) sum += weights[i] * x[i];
    return sum;
  };
  const double limit = config_.swiglu_limit;
  const double alpha = is(Mutation::kAlphaOne) ? 1.0 : static_cast<double>(config_.swiglu_alpha);
  Vector hidden;
  for (std::int64_t i = 0; i < inner; ++i) {
    const bool halves = is(Mutation::kGateUpHalves);
    double gate = value(halves ? i : 2 * i);
    double up = value(halves ? inner + i : 2 * i + 1);
    out.largest_gate = std::max({out.largest_gate, std::abs(gate), std::abs(up)});
    if (!is(Mutation::kClampOff)) {
      gate = std::min(gate, limit);
      up = std::max(-limit, std::min(up, limit));
    }
    const double glu = gate / (1.0 + std::exp(-alpha * gate));
    hidden.push_back(glu * (is(Mutation::kPlusOneDropped) ? up : up + 1.0));
  }
  Vector result(static_cast<std::size_t>(config_.hidden));
  for (std::int64_t r = 0; r < config_.hidden; ++r) {
    const float* weights = down.row(std::int64_t{index} * config_.hidden + r);
    double sum = is(Mutation::kNoDownBias) ? 0.0 : down_bias[r];
    for (std::size_t i = 0; i < hidden.size(); ++i) sum += weights[i] * hidden[i];
    result[static_cast<std::size_t>(r)] = sum;
  }
  return result;
}

// What the experts add to the residual stream of one token.
Vector Oracle::mixture(LayerId layer, const Vector& x, OracleOutput& out) const {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const Vector normed = norm(x, prefix + "post_attention_layernorm.weight");
  const Vector logits = linear(normed, prefix + "mlp.router", !is(Mutation::kNoRouterBias));
  Vector sum(x.size(), 0.0);
  for (const auto& [index, weight] : choose(logits, out)) {
    const Vector part = expert(prefix + "mlp.experts.", index, normed, out);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weight * part[i];
  }
  return sum;
}

OracleOutput Oracle::run(std::span<const TokenId> tokens) const {
  OracleOutput out;
  out.smallest_router_gap = 1e30;
  Matrix x;
  for (const TokenId token : tokens) {
    const float* row = tensor("model.embed_tokens.weight").row(token);
    x.emplace_back(row, row + config_.hidden);
  }
  for (LayerId layer = 0; layer < config_.num_layers; ++layer) {
    out.hidden.push_back(x);
    const Matrix attended = attention(layer, x);
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t i = 0; i < x[t].size(); ++i) x[t][i] += attended[t][i];
      const Vector mixed = mixture(layer, x[t], out);
      for (std::size_t i = 0; i < x[t].size(); ++i) x[t][i] += mixed[i];
    }
  }
  for (const Vector& row : x)
    out.logits.push_back(linear(norm(row, "model.norm.weight"), "lm_head", false));
  out.hidden.push_back(std::move(x));
  return out;
}

}  // namespace strata::oracle
