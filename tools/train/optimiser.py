"""Muon for the weight matrices, AdamW for the rest; learning rates follow the elapsed share of time."""

import torch

MATRICES = ("q", "k", "v", "o", "gate_up", "down")


@torch.no_grad()
def orthogonalised(g: torch.Tensor) -> torch.Tensor:
    """Nearest semi-orthogonal matrices of a batch [N, r, c] by five quintic Newton-Schulz steps, in bf16."""
    x = g.to(torch.bfloat16)
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.mT if flip else x).float()


class Optimiser:
    """Both optimisers over one model; `step(scale, decay)` applies the scheduled factor to all rates."""

    def __init__(self, model, muon_rate: float, adam_rate: float, compiled: bool):
        self.matrices = [getattr(model, name) for name in MATRICES]
        self.momentum = [torch.zeros_like(p) for p in self.matrices]
        ids = {id(p) for p in self.matrices}
        self.others = [p for p in model.parameters() if id(p) not in ids]
        self.adam = torch.optim.AdamW(self.others, lr=adam_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
        self.muon_rate, self.adam_rate = muon_rate, adam_rate
        self.orthogonalised = torch.compile(orthogonalised, dynamic=False) if compiled else orthogonalised

    @torch.no_grad()
    def step(self, scale: float, momentum: float = 0.95, decay: float = 0.05) -> None:
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        rate = self.muon_rate * scale
        for p, m in zip(self.matrices, self.momentum):
            m.mul_(momentum).add_(p.grad, alpha=1 - momentum)
            look_ahead = p.grad.lerp(m, momentum).view(-1, *p.shape[-2:])
            update = self.orthogonalised(look_ahead).view_as(p)
            p.mul_(1 - rate * decay).add_(update, alpha=-rate * 0.2 * max(p.shape[-2:]) ** 0.5)
            p.grad = None
