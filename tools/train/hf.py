"""GptOssForCausalLM of Hugging Face transformers with our dequantised weights, float32, eager."""

import json
import os
from pathlib import Path

import torch

from export import dequantised

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


def hf_config(raw: dict):
    """GptOssConfig of a config.json in either rope form."""
    from transformers import GptOssConfig
    rope = dict(raw.get("rope_parameters") or dict(raw["rope_scaling"], rope_theta=raw["rope_theta"]))
    rope["rope_theta"] = float(rope["rope_theta"])
    keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_local_experts", "num_attention_heads",
            "num_key_value_heads", "head_dim", "sliding_window", "rms_norm_eps", "num_experts_per_tok", "swiglu_limit",
            "layer_types", "max_position_embeddings", "attention_bias", "tie_word_embeddings", "hidden_act"]
    config = GptOssConfig(rope_parameters=rope, **{k: raw[k] for k in keys})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def load_hf(directory, dtype=torch.float32, device="cuda"):
    """The transformers model in evaluation mode, TF32 off."""
    from transformers import GptOssForCausalLM
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    raw = json.loads((Path(directory) / "config.json").read_text())
    model = GptOssForCausalLM(hf_config(raw)).to(dtype)
    weights = {k: v.mT.contiguous() if k.endswith(("experts.gate_up_proj", "experts.down_proj")) else v
               for k, v in dequantised(Path(directory)).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(f"missing {missing[:4]}, unexpected {unexpected[:4]}")
    return model.to(device).eval()


@torch.no_grad()
def hf_run(model, ids: list, layers: bool = False, cut: int = 0) -> tuple:
    """(logits [n - cut, vocab] float32, layer outputs [L, n, H] or None) of one prompt."""
    outputs, hooks = [], []
    if layers:
        take = lambda module, args, out: outputs.append((out[0] if isinstance(out, tuple) else out).detach())
        hooks = [layer.register_forward_hook(take) for layer in model.model.layers]
    result = model(input_ids=torch.tensor([ids], device=next(model.parameters()).device), use_cache=False)
    for hook in hooks:
        hook.remove()
    stacked = torch.stack([o.view(len(ids), -1) for o in outputs]) if layers else None
    return result.logits[0, cut:].float(), stacked
