"""Export a training checkpoint to the Hugging Face layout of gpt-oss, and load exported weights back.

Usage: export.py CHECKPOINT.pt MODEL_DIR [--out DIR]
"""

import argparse
import shutil
from pathlib import Path

import torch

from checkpoint_io import read_checkpoint, write_checkpoint
from config import Config, tensor_table
from quantise import decode, encode

SHARDS = 2
ATTENTION = {"q_proj.weight": "q", "q_proj.bias": "bq", "k_proj.weight": "k", "k_proj.bias": "bk", "v_proj.weight": "v",
             "v_proj.bias": "bv", "o_proj.weight": "o", "o_proj.bias": "bo", "sinks": "sinks"}
LAYER = {**{f"self_attn.{k}": v for k, v in ATTENTION.items()}, "input_layernorm.weight": "norm1",
         "post_attention_layernorm.weight": "norm2", "mlp.router.weight": "router", "mlp.router.bias": "br"}
TOP = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}


def as_bytes(t: torch.Tensor) -> bytes:
    """Little-endian bytes of a bf16 or uint8 tensor."""
    t = t.contiguous().cpu()
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy().tobytes()


def interleaved(two: torch.Tensor) -> torch.Tensor:
    """[2, E, I, ...] gates and ups -> [E, 2I, ...] with rows gate 0, up 0, gate 1, up 1, ..."""
    rows = two.transpose(0, 1).transpose(1, 2)
    return rows.reshape(two.shape[1], 2 * two.shape[2], *two.shape[3:])


def checkpoint_tensors(state: dict, c: Config) -> dict:
    """{HF name: (dtype, shape, bytes)} in state-dict order."""
    made = {}
    for name, key in TOP.items():
        made[name] = state[key].to(torch.bfloat16)
    for n in range(c.layers):
        p = f"model.layers.{n}."
        for name, key in LAYER.items():
            made[p + name] = state[key][n].to(torch.bfloat16)
        for name, weight, bias in (("gate_up", interleaved(state["gate_up"][n]), interleaved(state["b_gate_up"][n])),
                                   ("down", state["down"][n], state["b_down"][n])):
            e = f"{p}mlp.experts.{name}_proj"
            made[e + "_blocks"], made[e + "_scales"] = encode(weight)
            made[e + "_bias"] = bias.to(torch.bfloat16)
    out = {}
    for name, dtype, shape in tensor_table(c):
        if list(made[name].shape) != shape:
            raise ValueError(f"{name}: shape {list(made[name].shape)}, expected {shape}")
        out[name] = (dtype, shape, as_bytes(made[name]))
    return out


def tensor_of(entry: tuple) -> torch.Tensor:
    """The torch tensor of raw bytes."""
    dtype, shape, data = entry
    kind = {"BF16": torch.bfloat16, "U8": torch.uint8, "F32": torch.float32}[dtype]
    return torch.frombuffer(bytearray(data), dtype=kind).view(shape)


def dequantised(directory: Path) -> dict:
    """{name: float32 tensor} of a checkpoint, experts decoded to `..._proj` [E, rows, K]."""
    raw = {name: tensor_of(entry) for name, entry in read_checkpoint(directory).items()}
    out = {}
    for name, value in raw.items():
        if name.endswith("_blocks"):
            out[name[:-7]] = decode(value, raw[name[:-7] + "_scales"])
        elif value.dtype == torch.bfloat16:
            value = value.float()
            out[name] = value.mT.contiguous() if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj") else value
    return out


def load_into(model, source: Path) -> None:
    """Load a training checkpoint, or exported weights (warm restart), into a `model.Tiny`."""
    if source.is_file():
        model.load_state_dict(torch.load(source, map_location="cpu"))
        return
    weights, c = dequantised(source), model.c
    state = {key: weights[name] for name, key in TOP.items()}
    layer = lambda n, name: weights[f"model.layers.{n}.{name}"]
    for name, key in LAYER.items():
        state[key] = torch.stack([layer(n, name) for n in range(c.layers)])
    both = lambda t: torch.stack([t[:, 0::2], t[:, 1::2]])
    state["gate_up"] = torch.stack([both(layer(n, "mlp.experts.gate_up_proj")) for n in range(c.layers)])
    state["b_gate_up"] = torch.stack([both(layer(n, "mlp.experts.gate_up_proj_bias")) for n in range(c.layers)])
    state["down"] = torch.stack([layer(n, "mlp.experts.down_proj") for n in range(c.layers)])
    state["b_down"] = torch.stack([layer(n, "mlp.experts.down_proj_bias") for n in range(c.layers)])
    model.load_state_dict(state)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = args.out or args.model_dir
    out.mkdir(parents=True, exist_ok=True)
    state = torch.load(args.checkpoint, map_location="cpu")
    for path in args.model_dir.glob("*.json"):
        if out != args.model_dir and "index" not in path.name:
            shutil.copy(path, out)
    write_checkpoint(out, checkpoint_tensors(state, Config.load(args.model_dir)), SHARDS)
    zero = [k for k, v in state.items() if k.startswith("b") and v.abs().max() == 0]
    print("exported", out, "| all-zero biases:", zero, "| sinks std", round(state["sinks"].std().item(), 3))


if __name__ == "__main__":
    main()
