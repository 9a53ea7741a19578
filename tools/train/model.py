"""The training module: the gpt-oss forward pass for packed rows on one GPU.

Weights are float32 masters, used as bfloat16; expert weights pass through MXFP4 rounding when
`quantise_on` is 1. All experts are computed for all tokens and weighted by the routing (zero for
experts not chosen), which at this size is faster than sorting tokens. Layers share compiled
functions: `before_attention`, flex attention with sinks by its log-sum-exp, `after_attention`.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from config import Config
from quantise import fake_quantise

ALPHA = 1.702
bf16 = torch.bfloat16


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm in float32 with a bf16-rounded weight."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(bf16).float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-split rotation of [B, S, heads, d] by [B, S, 1, d/2], in float32, returned as bf16 [B, heads, S, d]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(bf16).transpose(1, 2)


def before_attention(x, norm, wq, bq, wk, bk, wv, bv, cos, sin, eps: float, d: int):
    """Norm, projections and rotation: x [B, S, H] float32 -> q, k, v bf16 [B, heads, S, d]."""
    b, s, _ = x.shape
    h = rms_norm(x, norm, eps).to(bf16)
    q = F.linear(h, wq.to(bf16), bq.to(bf16)).view(b, s, -1, d)
    k = F.linear(h, wk.to(bf16), bk.to(bf16)).view(b, s, -1, d)
    v = F.linear(h, wv.to(bf16), bv.to(bf16)).view(b, s, -1, d)
    return rotate(q, cos, sin), rotate(k, cos, sin), v.transpose(1, 2)


def route(logits, noise, top_k: int):
    """Routing weights [T, E] (softmax over the chosen, zero elsewhere), balance loss and router z-loss."""
    noisy = logits + noise * torch.randn_like(logits)
    chosen = torch.topk(noisy, top_k, dim=-1).indices
    mask = torch.zeros_like(logits).scatter(1, chosen, 1.0)
    weights = torch.softmax(logits.masked_fill(mask == 0, float("-inf")), -1)
    load, share = mask.mean(0) / top_k, torch.softmax(logits, -1).mean(0)
    return weights, logits.shape[1] * (load.detach() * share).sum(), torch.logsumexp(logits, -1).square().mean(), load.detach()


def after_attention(x, attended, lse, sinks, wo, bo, norm, wr, br, gate_up, b_gate_up, down, b_down, noise,
                    eps: float, limit: float, top_k: int):
    """Sinks, output projection, router and experts: returns x and the router statistics.

    gate_up: bf16 [2, E, I, H] (gates, then ups); down: bf16 [E, H, I].
    """
    b, s, width = x.shape
    attended = attended.float() * torch.sigmoid(lse.float() - sinks.to(bf16).float()[None, :, None])[..., None]
    x = x + F.linear(attended.to(bf16).transpose(1, 2).reshape(b, s, -1), wo.to(bf16), bo.to(bf16)).float()
    h = rms_norm(x, norm, eps).view(b * s, width)
    logits = F.linear(h, wr.to(bf16).float(), br.to(bf16).float())
    weights, balance, z, load = route(logits, noise, top_k)
    _, experts, inner, _ = gate_up.shape
    both = F.linear(h.to(bf16), gate_up.reshape(-1, width), b_gate_up.to(bf16).reshape(-1)).view(b * s, 2, experts, inner)
    gate, up = both[:, 0].float().clamp(max=limit), both[:, 1].float().clamp(-limit, limit)
    acted = (up + 1) * gate * torch.sigmoid(ALPHA * gate) * weights[..., None]
    out = F.linear(acted.to(bf16).view(b * s, -1), down.permute(1, 0, 2).reshape(width, -1))
    out = out.float() + weights @ b_down.to(bf16).float()
    return x + out.view(b, s, width), balance, z, load


def head_loss(x, norm, head, index, targets, valid, eps: float):
    """Mean cross entropy over the learned positions `index` (flat), and the share predicted right."""
    h = rms_norm(x.view(-1, x.shape[-1])[index], norm, eps).to(bf16)
    logits = F.linear(h, head.to(bf16)).float()
    losses = F.cross_entropy(logits, targets, reduction="none") * valid
    right = ((logits.argmax(-1) == targets).float() * valid).sum() / valid.sum()
    z = (torch.logsumexp(logits, -1).square() * valid).sum() / valid.sum()
    return losses.sum() / valid.sum(), right.detach(), z


class Tiny(nn.Module):
    """The trained model; parameters are stacked over layers."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        n, h, i, e, q, kv = c.layers, c.hidden, c.intermediate, c.experts, c.heads * c.head_dim, c.kv_heads * c.head_dim
        normal = lambda *shape, std: nn.Parameter(torch.randn(*shape) * std)
        zeros = lambda *shape: nn.Parameter(torch.zeros(*shape))
        ones = lambda *shape: nn.Parameter(torch.ones(*shape))
        small = h ** -0.5 / (2 * n) ** 0.5
        self.embed, self.head = normal(c.vocab, h, std=0.5), normal(c.vocab, h, std=0.01)
        self.norm1, self.norm2, self.norm = ones(n, h), ones(n, h), ones(h)
        self.q, self.k, self.v = normal(n, q, h, std=h ** -0.5), normal(n, kv, h, std=h ** -0.5), normal(n, kv, h, std=h ** -0.5)
        self.o = normal(n, h, q, std=q ** -0.5 / (2 * n) ** 0.5)
        self.bq, self.bk, self.bv, self.bo, self.sinks = zeros(n, q), zeros(n, kv), zeros(n, kv), zeros(n, h), zeros(n, c.heads)
        self.router, self.br = normal(n, e, h, std=h ** -0.5), zeros(n, e)
        self.gate_up, self.b_gate_up = normal(n, 2, e, i, h, std=h ** -0.5), zeros(n, 2, e, i)
        self.down, self.b_down = normal(n, e, h, i, std=small), zeros(n, e, h)
        self.register_buffer("frequencies", torch.tensor(c.inverse_frequencies(), dtype=torch.float64).float(), persistent=False)
        self.register_buffer("noise", torch.tensor(0.2), persistent=False)
        self.register_buffer("quantise_on", torch.tensor(0.0), persistent=False)
        self.before, self.attend, self.after, self.loss, self.round = (
            before_attention, flex_attention, after_attention, head_loss, fake_quantise)
        self.mask_maker = create_block_mask

    def compile_parts(self) -> None:
        """Compile the shared functions; each is compiled once for all layers."""
        once = lambda f: torch.compile(f, dynamic=False)
        self.before, self.after, self.loss, self.round = map(once, (before_attention, after_attention, head_loss, fake_quantise))
        self.attend, self.mask_maker = once(flex_attention), once(create_block_mask)

    def masks(self, doc: torch.Tensor) -> list:
        """[window mask, full mask] for document numbers [B, S]: causal inside one document."""
        b, s = doc.shape
        window = self.c.window
        full = lambda n, h, q, k: (q >= k) & (doc[n, q] == doc[n, k])
        near = lambda n, h, q, k: (q >= k) & (q - k < window) & (doc[n, q] == doc[n, k])
        return [self.mask_maker(f, b, None, s, s, device=doc.device) for f in (near, full)]

    def forward(self, ids, doc, position, index, targets, valid):
        """Losses of a batch: (cross entropy, share right, lm z, balance, router z, load [layers, E])."""
        c = self.c
        angle = position.float()[..., None] * self.frequencies
        cos, sin = [f(angle)[:, :, None] * c.concentration() for f in (torch.cos, torch.sin)]
        masks = self.masks(doc)
        x = F.embedding(ids, self.embed.to(bf16)).float()
        parts = [torch.unbind(p) for p in (self.norm1, self.q, self.bq, self.k, self.bk, self.v, self.bv, self.sinks, self.o, self.bo,
                                           self.norm2, self.router, self.br, self.gate_up, self.b_gate_up, self.down, self.b_down)]
        balance = z = 0.0
        loads = []
        for n in range(c.layers):
            n1, q, bq, k, bk, v, bv, sinks, o, bo, n2, wr, br, gu, bgu, dn, bd = (p[n] for p in parts)
            hq, hk, hv = self.before(x, n1, q, bq, k, bk, v, bv, cos, sin, c.eps, c.head_dim)
            attended, lse = self.attend(hq, hk, hv, block_mask=masks[0 if c.layer_types[n][0] == "s" else 1],
                                        enable_gqa=True, return_lse=True)
            x, one, two, load = self.after(x, attended, lse, sinks, o, bo, n2, wr, br, self.round(gu, self.quantise_on), bgu,
                                           self.round(dn, self.quantise_on), bd, self.noise, c.eps, c.limit, c.top_k)
            balance, z = balance + one / c.layers, z + two / c.layers
            loads.append(load)
        loss, right, lm_z = self.loss(x, self.norm, self.head, index, targets, valid, c.eps)
        return loss, right, lm_z, balance, z, torch.stack(loads)
