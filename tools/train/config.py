"""Model configuration, YaRN frequencies and the tensor table of a gpt-oss checkpoint."""

import json
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """The shape fields of config.json; both rope forms are read."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    experts: int
    top_k: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    eps: float
    limit: float
    theta: float
    factor: float
    original_context: int
    beta_fast: float
    beta_slow: float
    truncate: bool
    layer_types: list

    @classmethod
    def read(cls, raw: dict) -> "Config":
        rope = raw.get("rope_parameters") or raw["rope_scaling"]
        return cls(raw["vocab_size"], raw["hidden_size"], raw["intermediate_size"], raw["num_hidden_layers"],
                   raw["num_local_experts"], raw["num_experts_per_tok"], raw["num_attention_heads"],
                   raw["num_key_value_heads"], raw["head_dim"], raw["sliding_window"], raw["rms_norm_eps"],
                   raw["swiglu_limit"], float(rope.get("rope_theta", raw.get("rope_theta", 150000))), rope["factor"],
                   rope["original_max_position_embeddings"], rope["beta_fast"], rope["beta_slow"],
                   rope.get("truncate", True), raw["layer_types"])

    @classmethod
    def load(cls, directory) -> "Config":
        return cls.read(json.loads((Path(directory) / "config.json").read_text()))

    def inverse_frequencies(self) -> list:
        """YaRN inverse frequencies, head_dim / 2 doubles."""
        d = self.head_dim
        position = lambda turns: d * math.log(self.original_context / (turns * 2 * math.pi)) / (2 * math.log(self.theta))
        low, high = position(self.beta_fast), position(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, d - 1)
        high = high + 0.001 if low == high else high
        out = []
        for i in range(d // 2):
            plain = self.theta ** (-2 * i / d)
            keep = 1 - min(max((i - low) / (high - low), 0), 1)
            out.append(plain * keep + plain / self.factor * (1 - keep))
        return out

    def concentration(self) -> float:
        """Factor on cos and sin."""
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


def tensor_table(c: Config, bf16_experts: bool = False) -> list:
    """[(name, dtype, shape)] of a checkpoint in state-dict order."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    out = [("model.embed_tokens.weight", "BF16", [c.vocab, c.hidden])]
    for n in range(c.layers):
        p = f"model.layers.{n}."
        out += [(p + "input_layernorm.weight", "BF16", [c.hidden]), (p + "self_attn.sinks", "BF16", [c.heads])]
        for name, rows, columns in (("q", q, c.hidden), ("k", kv, c.hidden), ("v", kv, c.hidden), ("o", c.hidden, q)):
            out += [(f"{p}self_attn.{name}_proj.weight", "BF16", [rows, columns]), (f"{p}self_attn.{name}_proj.bias", "BF16", [rows])]
        out += [(p + "post_attention_layernorm.weight", "BF16", [c.hidden]),
                (p + "mlp.router.weight", "BF16", [c.experts, c.hidden]), (p + "mlp.router.bias", "BF16", [c.experts])]
        for name, rows, k in (("gate_up", 2 * c.intermediate, c.hidden), ("down", c.hidden, c.intermediate)):
            e = f"{p}mlp.experts.{name}_proj"
            if bf16_experts:
                out.append((e, "BF16", [c.experts, k, rows]))
            else:
                out += [(e + "_blocks", "U8", [c.experts, rows, k // 32, 16]), (e + "_scales", "U8", [c.experts, rows, k // 32])]
            out.append((e + "_bias", "BF16", [c.experts, rows]))
    return out + [("model.norm.weight", "BF16", [c.hidden]), ("lm_head.weight", "BF16", [c.vocab, c.hidden])]
