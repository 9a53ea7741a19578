"""Random gpt-oss checkpoints of odd shapes from a counter-based generator, for tests of loaders.

Usage: synth_checkpoint.py SHAPE OUT_DIR       (SHAPE: a name of SHAPES, or "all")

Standard library only; any program can make the same files bit for bit. The rules, with the role
table, are in tests/golden/README.md:

    key(name)   = fnv1a64(name) xor (seed * 0x9E3779B97F4A7C15 mod 2^64)
    value(i)    = finalizer(key + (i + 1) * 0x9E3779B97F4A7C15 mod 2^64)     i = flat element index
    uniform(i)  = (value(i) >> 40) * 2^-23 - 1                               in [-1, 1), exact in float32
    BF16 tensor = round_to_nearest_even(base + amplitude * uniform(i))       sum and product in float32
    blocks      = value(i) & 255;   scales = scale base + value(i) % 3
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

from checkpoint_io import write_checkpoint
from config import Config, tensor_table

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

# role: (name ending, base, amplitude); the first ending that matches counts
ROLES = [("layernorm.weight", 1.0, 0.25), ("model.norm.weight", 1.0, 0.25), ("embed_tokens.weight", 0.0, 1.0),
         ("lm_head.weight", 0.0, 0.5), ("sinks", 0.0, 2.0), ("router.weight", 0.0, 0.5), ("o_proj.weight", 0.0, 0.0625),
         ("_proj.weight", 0.0, 0.125), ("bias", 0.0, 1.0), ("gate_up_proj", 0.0, 1.0), ("experts.down_proj", 0.0, 0.015625)]
SCALE_BASES = {"gate_up_proj_scales": 124, "down_proj_scales": 118}


def shape(hidden, intermediate, layers, experts, top_k, heads, kv_heads, window, vocab, seed, shards=1, factor=32.0,
          theta=150000, original=4096, truncate=False, new_rope=False, bf16_experts=False, prompts=(24, 200)):
    """One entry of SHAPES."""
    rope = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": factor, "original_max_position_embeddings": original,
            "rope_type": "yarn", "truncate": truncate}
    config = {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0, "eos_token_id": vocab - 1,
        "experts_per_token": top_k, "head_dim": 64, "hidden_act": "silu", "hidden_size": hidden,
        "initial_context_length": original, "initializer_range": 0.02, "intermediate_size": intermediate,
        "layer_types": [("sliding_attention", "full_attention")[n % 2] for n in range(layers)],
        "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": heads,
        "num_experts_per_tok": top_k, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "num_local_experts": experts, "output_router_logits": False, "pad_token_id": vocab - 2, "rms_norm_eps": 1e-05,
        "router_aux_loss_coef": 0.9, "sliding_window": window, "swiglu_limit": 7.0, "tie_word_embeddings": False,
        "use_cache": True, "vocab_size": vocab}
    if new_rope:
        config["rope_parameters"] = dict(rope, rope_theta=theta)
    else:
        config.update(rope_scaling=rope, rope_theta=theta)
    if not bf16_experts:
        config["quantization_config"] = {
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
            "quant_method": "mxfp4"}
    return {"config": config, "seed": seed, "shards": shards, "bf16_experts": bf16_experts, "prompts": list(prompts)}


SHAPES = {
    "micro": shape(64, 96, 4, 8, 4, 16, 2, 8, 384, seed=1, prompts=(24, 300, 4500)),
    "five": shape(96, 64, 3, 5, 2, 6, 2, 16, 300, seed=2, shards=3, factor=8.0, theta=10000, original=1024, new_rope=True),
    "seven": shape(160, 32, 2, 7, 3, 4, 4, 5, 131, seed=3, shards=2, factor=4.0, original=512),
    "one": shape(32, 160, 4, 3, 1, 8, 1, 128, 512, seed=4, prompts=(24, 400)),
    "dense16": shape(64, 64, 4, 6, 2, 8, 2, 33, 257, seed=5, factor=16.0, new_rope=True, bf16_experts=True, shards=2),
    "wide": shape(128, 96, 6, 16, 4, 10, 2, 64, 1000, seed=6, shards=5, factor=64.0, original=2048, truncate=True,
                  prompts=(24, 500)),
}


def fnv1a64(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def values(name: str, seed: int, count: int):
    """The first `count` 64-bit values of a tensor."""
    state = fnv1a64(name) ^ (seed * GOLDEN & MASK)
    for _ in range(count):
        state = (state + GOLDEN) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def bf16_bits(x: float) -> int:
    """Round a float32 value to bf16, nearest even; returns the 16 bits."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def tensor_bytes(name: str, dtype: str, dims: list, seed: int) -> bytes:
    """The bytes of one tensor.

    Amplitudes are powers of two, so amplitude * uniform is exact; base + that is rounded to
    float32 by struct.pack before it is rounded to bf16.
    """
    count = 1
    for d in dims:
        count *= d
    if name.endswith("_blocks"):
        return bytes(v & 255 for v in values(name, seed, count))
    if name.endswith("_scales"):
        base = next(b for ending, b in SCALE_BASES.items() if name.endswith(ending))
        return bytes(base + v % 3 for v in values(name, seed, count))
    base, amplitude = next((b, a) for ending, b, a in ROLES if name.endswith(ending))
    bits = (bf16_bits(base + amplitude * ((v >> 40) * 2.0 ** -23 - 1)) for v in values(name, seed, count))
    return struct.pack(f"<{count}H", *bits)


def prompt(name: str, number: int) -> list:
    """Token ids of a test prompt of a shape."""
    entry = SHAPES[name]
    stream = values(f"prompt:{number}", entry["seed"], entry["prompts"][number])
    return [v % entry["config"]["vocab_size"] for v in stream]


def write(name: str, out: Path) -> dict:
    """Write one checkpoint directory; returns {file name: sha256}."""
    entry = SHAPES[name]
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(entry["config"], indent=2) + "\n")
    table = tensor_table(Config.read(entry["config"]), entry["bf16_experts"])
    tensors = {n: (dtype, dims, tensor_bytes(n, dtype, dims, entry["seed"])) for n, dtype, dims in table}
    write_checkpoint(out, tensors, entry["shards"])
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.safetensors"))}


def main() -> None:
    names, out = list(SHAPES) if sys.argv[1] == "all" else [sys.argv[1]], Path(sys.argv[2])
    for name in names:
        for file, digest in write(name, out / name).items():
            print(name, file, digest)


if __name__ == "__main__":
    main()
