"""A plain gpt-oss forward pass with a KV cache, for evaluation and for the mutation table.

Written for clarity, any float type. `mutations` is a set of names from MUTATIONS: each changes one
rule of the model, to find out which tests would notice such a mistake.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from checkpoint_io import read_checkpoint
from config import Config
from export import tensor_of
from quantise import decode

QUERIES = 256
MUTATIONS = {
    "sinks_off": "sinks = -inf (plain softmax)",
    "sinks_rolled": "query head h uses the sink of head (h + 1) mod heads",
    "window_minus_1": "sliding layers see q - k < window - 1",
    "window_plus_1": "sliding layers see q - k < window + 1",
    "window_off": "sliding layers see all keys",
    "window_parity": "full and sliding layers exchanged",
    "yarn_factor_1": "plain RoPE: frequencies theta^(-2i/d), concentration 1",
    "concentration_1": "cos and sin not multiplied by 0.1 ln(factor) + 1",
    "ramp_rounded": "YaRN ramp ends floor(low), ceil(high)",
    "rope_interleaved": "rotation of pairs (2i, 2i + 1) in place of (i, i + d/2)",
    "softmax_before_topk": "softmax over all experts, then the top k taken without renormalising",
    "top_k_minus_1": "one expert fewer (the weakest of the top k dropped before the softmax)",
    "router_bias_0": "router bias = 0",
    "up_plus_1_dropped": "gate * sigmoid(alpha gate) * up",
    "alpha_1": "sigmoid(gate) in place of sigmoid(1.702 gate)",
    "clamp_off": "no clamp of gate and up",
    "gate_clamped_below": "gate clamped to [-limit, limit]",
    "gate_up_halves": "gate = rows 0..I-1, up = rows I..2I-1 of gate_up (weights and bias)",
    "nibbles_swapped": "high nibble is the even element",
    "scale_plus_1": "MXFP4 scale 2^(byte - 126) in gate_up",
    "q_bias_0": "q bias = 0", "k_bias_0": "k bias = 0", "v_bias_0": "v bias = 0", "o_bias_0": "o bias = 0",
    "gate_up_bias_0": "gate_up bias = 0", "down_bias_0": "down bias = 0",
    "eps_1e-6": "RMS norm eps 1e-6", "kv_head_mod": "query head h uses kv head h mod kv_heads",
}


def load_weights(directory: Path, dtype, device, mutations=frozenset()) -> dict:
    """{name: tensor}; experts decoded to gate_up_proj [E, 2I, H] and down_proj [E, H, I]."""
    raw = {name: tensor_of(entry).to(device) for name, entry in read_checkpoint(directory).items()}
    out = {}
    for name, value in raw.items():
        if name.endswith("_blocks"):
            blocks, scales = value, raw[name[:-7] + "_scales"]
            if "nibbles_swapped" in mutations:
                blocks = ((blocks & 15) << 4) | (blocks >> 4)
            out[name[:-7]] = decode(blocks, scales).to(dtype)
            if "scale_plus_1" in mutations and "gate_up" in name:
                out[name[:-7]] = out[name[:-7]] * 2
        elif value.dtype == torch.bfloat16:
            if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
                value = value.mT
            out[name] = value.to(dtype)
    for key, part in (("q", "q_proj.bias"), ("k", "k_proj.bias"), ("v", "v_proj.bias"), ("o", "o_proj.bias"),
                      ("gate_up", "gate_up_proj_bias"), ("down", "down_proj_bias"), ("router", "router.bias")):
        if f"{key}_bias_0" in mutations:
            out.update({name: torch.zeros_like(v) for name, v in out.items() if name.endswith(part)})
    return out


class Reference:
    """The model over a batch of sequences with individual lengths."""

    def __init__(self, directory, dtype=torch.float32, device="cuda", mutations=frozenset()):
        self.c, self.m, self.dtype, self.device = Config.load(directory), frozenset(mutations), dtype, device
        unknown = self.m - set(MUTATIONS)
        if unknown:
            raise ValueError(f"unknown mutations {sorted(unknown)}")
        c = self.c
        self.concentration = 1.0 if self.m & {"yarn_factor_1", "concentration_1"} else c.concentration()
        if "yarn_factor_1" in self.m:
            c.factor = 1.0
        c.truncate = c.truncate or "ramp_rounded" in self.m
        c.eps = 1e-6 if "eps_1e-6" in self.m else c.eps
        self.frequencies = torch.tensor(c.inverse_frequencies(), dtype=torch.float64, device=device)
        self.w = load_weights(Path(directory), dtype, device, self.m)
        self.cache = None

    def start(self, batch: int, room: int) -> None:
        """An empty cache of `room` positions."""
        c = self.c
        shape = (c.layers, batch, c.kv_heads, room, c.head_dim)
        self.cache = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2)]

    def norm(self, x, name):
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.c.eps)
        return (wide * self.w[name].to(wide.dtype)).to(self.dtype)

    def rotate(self, x, position):
        """x [B, heads, T, d]; the angle is computed in float64, or as float32 products for float32 models."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        angle = position.to(wide)[:, None, :, None] * self.frequencies.to(wide)
        cos, sin = ((f(angle) * self.concentration).to(self.dtype) for f in (torch.cos, torch.sin))
        if "rope_interleaved" in self.m:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def visible(self, layer: int, position, least: int, keys: int):
        """Boolean mask [B, 1, T, keys] of the keys least..least + keys - 1 that a query sees."""
        sliding = (self.c.layer_types[layer][0] == "s") != ("window_parity" in self.m)
        distance = position[:, None, :, None] - torch.arange(least, least + keys, device=self.device)
        mask = distance >= 0
        if sliding and "window_off" not in self.m:
            window = self.c.window + ("window_plus_1" in self.m) - ("window_minus_1" in self.m)
            mask &= distance < window
        return mask

    def attention(self, n: int, h, position):
        c, p = self.c, f"model.layers.{n}.self_attn."
        b, t, _ = h.shape
        linear = lambda name: F.linear(h, self.w[p + name + ".weight"], self.w[p + name + ".bias"])
        split = lambda x, heads: x.view(b, t, heads, c.head_dim).transpose(1, 2)
        q, k = (self.rotate(split(linear(f"{s}_proj"), heads), position) for s, heads in (("q", c.heads), ("k", c.kv_heads)))
        v = split(linear("v_proj"), c.kv_heads)
        if self.cache is not None:
            rows = torch.arange(b, device=self.device)[:, None]
            for store, new in zip(self.cache, (k, v)):
                store[n][rows, :, position] = new.transpose(1, 2)
            k, v = (store[n] for store in self.cache)
        parts = []
        for first in range(0, t, QUERIES):      # in chunks of queries, over the keys that a chunk can see
            seen = position[:, first:first + QUERIES]
            least, most = self.key_range(n, seen)
            parts.append(self.attend(n, q[:, :, first:first + QUERIES], k[:, :, least:most], v[:, :, least:most], seen, least))
        out = torch.cat(parts, 2).transpose(1, 2).reshape(b, t, -1)
        return F.linear(out, self.w[p + "o_proj.weight"], self.w[p + "o_proj.bias"])

    def key_range(self, n: int, position) -> tuple:
        """First and end of the keys that any of the queries at `position` sees in layer n."""
        most = int(position.max()) + 1
        if (self.c.layer_types[n][0] == "s") == ("window_parity" in self.m) or "window_off" in self.m:
            return 0, most
        return max(0, int(position.min()) - self.c.window - 1), most

    def attend(self, n: int, q, k, v, position, least: int):
        """Attention of queries [B, heads, T, d] over keys from index `least` on, sinks included."""
        c = self.c
        b, _, t, _ = q.shape
        keys, group = k.shape[2], c.heads // c.kv_heads
        sinks = self.w[f"model.layers.{n}.self_attn.sinks"]
        if "sinks_rolled" in self.m:
            sinks = sinks.roll(-1)
        if "sinks_off" in self.m:
            sinks = torch.full_like(sinks, float("-inf"))
        if "kv_head_mod" in self.m:     # query heads ordered by h mod kv_heads, undone at the end
            order = torch.arange(c.heads, device=self.device).view(group, c.kv_heads).T.flatten()
            q, sinks = q[:, order], sinks[order]
        grouped = q.reshape(b, c.kv_heads, group * t, c.head_dim)       # the query heads of one kv head side by side
        scores = (grouped @ k.mT).view(b, c.heads, t, keys) * c.head_dim ** -0.5
        scores = scores.masked_fill(~self.visible(n, position, least, keys), float("-inf"))
        scores = torch.cat([scores, sinks[None, :, None, None].expand(b, -1, t, 1)], -1)
        weights = torch.softmax(scores, -1)[..., :-1]
        out = (weights.reshape(b, c.kv_heads, group * t, keys) @ v).view(b, c.heads, t, c.head_dim)
        return out[:, order.argsort()] if "kv_head_mod" in self.m else out

    def experts(self, n: int, h):
        """Routed experts of h [T, H]; also the gap between the last chosen and the first other logit [T]."""
        c, p = self.c, f"model.layers.{n}.mlp."
        logits = F.linear(h, self.w[p + "router.weight"], self.w[p + "router.bias"])
        value, index = torch.topk(logits, min(c.top_k + 1, c.experts), -1)
        gap = value[:, c.top_k - 1] - value[:, c.top_k] if c.experts > c.top_k else torch.full_like(value[:, 0], float("inf"))
        k = c.top_k - ("top_k_minus_1" in self.m)
        chosen = torch.softmax(logits, -1).gather(1, index[:, :k]) if "softmax_before_topk" in self.m else torch.softmax(value[:, :k], -1)
        weights = torch.zeros_like(logits).scatter(1, index[:, :k], chosen)
        names = [p + "experts." + s for s in ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")]
        if len(h) <= 128 and self.device == "cuda":     # decoding: all experts at once, without waiting for the GPU
            gate_up, b_gate_up, down, b_down = (self.w[name] for name in names)
            acted = self.swiglu(torch.einsum("th,ejh->tej", h, gate_up) + b_gate_up)
            return torch.einsum("teh,te->th", torch.einsum("tei,ehi->teh", acted, down) + b_down, weights), gap
        out = torch.zeros_like(h)
        for e in range(c.experts):
            used = weights[:, e].nonzero()[:, 0]
            if len(used):
                gate_up, b_gate_up, down, b_down = (self.w[name][e] for name in names)
                acted = F.linear(self.swiglu(F.linear(h[used], gate_up, b_gate_up)), down, b_down)
                out[used] += acted * weights[used, e, None]
        return out, gap

    def swiglu(self, both):
        c = self.c
        gate, up = both[..., 0::2], both[..., 1::2]
        if "gate_up_halves" in self.m:
            gate, up = both[..., :c.intermediate], both[..., c.intermediate:]
        if "clamp_off" not in self.m:
            least = -c.limit if "gate_clamped_below" in self.m else None
            gate, up = gate.clamp(min=least, max=c.limit), up.clamp(-c.limit, c.limit)
        acted = gate * torch.sigmoid((1.0 if "alpha_1" in self.m else 1.702) * gate)
        return acted * (up if "up_plus_1_dropped" in self.m else up + 1)

    def forward(self, ids, start, keep=None, layers=None, gaps=None):
        """Logits of ids [B, T] at positions start [B] + 0..T-1; without `start()` before, no cache is kept.

        keep: [B] index of the one position a sequence needs (logits [B, V]); None returns [B, T, V].
        layers: a list that receives each layer's output [B, T, H]; gaps: a list of router gaps [B, T].
        """
        position = start[:, None] + torch.arange(ids.shape[1], device=self.device)
        x = self.w["model.embed_tokens.weight"][ids]
        for n in range(self.c.layers):
            x = x + self.attention(n, self.norm(x, f"model.layers.{n}.input_layernorm.weight"), position)
            h = self.norm(x, f"model.layers.{n}.post_attention_layernorm.weight")
            routed, gap = self.experts(n, h.flatten(0, 1))
            x = x + routed.view_as(x)
            if layers is not None:
                layers.append(x)
            if gaps is not None:
                gaps.append(gap.view(x.shape[:2]))
        if keep is not None:
            x = x[torch.arange(len(x), device=self.device), keep]
        return F.linear(self.norm(x, "model.norm.weight"), self.w["lm_head.weight"])

    @torch.no_grad()
    def log_probabilities(self, ids: list, **more):
        """Natural log-probability of every token of one prompt after the first, float [n - 1], and all logits."""
        tokens = torch.tensor([ids], device=self.device)
        self.start(1, len(ids))
        logits = self.forward(tokens, torch.zeros(1, dtype=torch.long, device=self.device), **more)[0]
        wide = logits.double() if self.dtype == torch.float64 else logits.float()
        return torch.log_softmax(wide, -1)[:-1].gather(1, tokens[0, 1:, None])[:, 0], logits

    @torch.no_grad()
    def generate(self, prompts: list, limit: int, stops: set) -> list:
        """Greedy continuations of a list of prompts: [(ids with the stop token, margin of each step)].

        The margin is the largest logit minus the second.
        """
        room = max(map(len, prompts)) + limit
        self.start(len(prompts), room)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long, device=self.device)
        for i, p in enumerate(prompts):
            ids[i, :len(p)] = torch.tensor(p, device=self.device)
        logits = self.forward(ids, torch.zeros_like(lengths), keep=lengths - 1)
        out, done = [([], []) for _ in prompts], [False] * len(prompts)
        for _ in range(limit):
            best, (value, _) = logits.argmax(-1), logits.float().topk(2, -1)
            for i, (token, margin) in enumerate(zip(best.tolist(), (value[:, 0] - value[:, 1]).tolist())):
                if not done[i]:
                    out[i][0].append(token)
                    out[i][1].append(margin)
                    done[i] = token in stops
            if all(done):
                break
            logits = self.forward(best[:, None], lengths, keep=torch.zeros_like(lengths))
            lengths = lengths + 1
        return out
