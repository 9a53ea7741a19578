"""MXFP4 rounding: groups of 32 values share a power-of-two scale; each value is one of 16 codes.

`fake_quantise` is used in training (values), `encode` at export (bytes). Both choose for each
group the exponent, floor(log2 amax) - 2 or one more, that gives the smaller squared error.
"""

import torch

GROUP = 32
LEVELS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
LEAST_EXPONENT = -100


def round_to_levels(x: torch.Tensor) -> torch.Tensor:
    """Nearest e2m1 value of |x| (x >= 0), saturating at 6."""
    small = torch.round(x * 2) / 2
    large = torch.where(x < 4, torch.round(x), torch.round(x / 2) * 2)
    return torch.where(x < 2, small, large).clamp(max=6.0)


def group_exponents(blocks: torch.Tensor) -> torch.Tensor:
    """Best exponent of each group: float32 [..., K/32, 1] from blocks [..., K/32, 32]."""
    amax = blocks.abs().amax(-1, keepdim=True).clamp(min=2.0 ** LEAST_EXPONENT)
    low = torch.floor(torch.log2(amax)) - 2
    best, error = low, None
    for exponent in (low, low + 1):
        scale = torch.exp2(exponent)
        rounded = round_to_levels(blocks.abs() / scale) * scale
        now = (rounded - blocks.abs()).square().sum(-1, keepdim=True)
        best = exponent if error is None else torch.where(now < error, exponent, best)
        error = now if error is None else torch.minimum(now, error)
    return best


def quantised_values(w: torch.Tensor) -> torch.Tensor:
    """w [..., K] float32 rounded to MXFP4 values."""
    blocks = w.reshape(*w.shape[:-1], -1, GROUP)
    scale = torch.exp2(group_exponents(blocks))
    return (round_to_levels(blocks.abs() / scale) * scale * torch.sign(blocks)).reshape(w.shape)


def fake_quantise(w: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """w with the rounding error added where `on` (a 0/1 scalar tensor) is 1; identity gradient; bf16."""
    with torch.no_grad():
        error = (quantised_values(w) - w) * on
    return (w + error).to(torch.bfloat16)


def encode(w: torch.Tensor) -> tuple:
    """(blocks uint8 [..., K/32, 16], scales uint8 [..., K/32]) of w [..., K]."""
    groups = w.float().reshape(*w.shape[:-1], -1, GROUP)
    exponents = group_exponents(groups)
    magnitude = round_to_levels(groups.abs() / torch.exp2(exponents))
    levels = torch.tensor(LEVELS, device=w.device)
    code = (magnitude[..., None] - levels).abs().argmin(-1) + 8 * (groups < 0)
    code = torch.where(magnitude == 0, torch.zeros_like(code), code).to(torch.uint8)
    return code[..., 0::2] | (code[..., 1::2] << 4), (exponents[..., 0] + 127).to(torch.uint8)


def decode(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """float32 values [..., K] of encoded blocks [..., K/32, 16] and scales [..., K/32]."""
    levels = torch.tensor(LEVELS + [-v for v in LEVELS], device=blocks.device)
    code = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()
    values = levels[code] * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2)
