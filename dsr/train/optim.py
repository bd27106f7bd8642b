"""Optimizers that DeepSpeed does not have on every device: LARS and LAMB, with a separate rate for each layer.

A layer is one parameter. Parameters with at most one dimension (biases) are not adapted, as is customary: their trust
ratio is 1. Without adaptation LARS is momentum SGD, and LAMB is AdamW. Both need the norms of whole layers, so
every rank must hold them: at ZeRO stage 0.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

LOWEST, HIGHEST = 0.01, 10.0  # LAMB's trust ratio is clamped as in DeepSpeed's own for CUDA
IGNORED = {
    "torch_adam",
    "adam_w_mode",
    "amsgrad",
    "dampening",
    "nesterov",
    "fused",
}  # without effect, or off, as dsr.config has checked


class Lars(torch.optim.Optimizer):
    """v <- m v + lr r (g + wd w); w <- w - v, with r = trust |w| / (|g| + wd |w|), and 1 where |w| or |g| is 0.

    You et al. 2017 (arXiv:1708.03888), algorithm 1. The rate is inside the momentum, as in the paper. State of a
    parameter: `momentum_buffer`, of its shape and dtype.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            for w in weights:
                if not self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
            buffers = [self.state[w]["momentum_buffer"] for w in weights]
            decay = group["weight_decay"]
            of_weights, of_gradients = _norms(weights), _norms(gradients)
            ratios = group["trust"] * of_weights / (of_gradients + decay * of_weights)
            usual = _one_dimensional(weights) | (of_weights == 0) | (of_gradients == 0)
            steps = torch._foreach_add(gradients, weights, alpha=decay)
            torch._foreach_mul_(steps, list(torch.where(usual, 1.0, ratios) * group["lr"]))
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps)
            torch._foreach_sub_(weights, buffers)


class Lamb(torch.optim.Optimizer):
    """u = m' / (sqrt(v') + eps) + wd w; w <- w - lr r u, with r = |w| / |u| in [0.01, 10], and 1 where either is 0.

    You et al. 2019 (arXiv:1904.00962), algorithm 2; m' and v' are Adam's averages, with the bias correction. State of a
    parameter: `step` (a number), `exp_avg` and `exp_avg_sq`, of its shape and dtype.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            for w in weights:
                state = self.state[w]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(w), exp_avg_sq=torch.zeros_like(w))
                state["step"] += 1
            means = [self.state[w]["exp_avg"] for w in weights]
            squares = [self.state[w]["exp_avg_sq"] for w in weights]
            counts = [self.state[w]["step"] for w in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
            below = torch._foreach_sqrt(squares)
            torch._foreach_div_(below, [(1 - beta2**count) ** 0.5 for count in counts])
            torch._foreach_add_(below, group["eps"])
            steps = torch._foreach_div(means, [1 - beta1**count for count in counts])
            torch._foreach_div_(steps, below)
            torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
            of_weights, of_steps = _norms(weights), _norms(steps)
            usual = _one_dimensional(weights) | (of_weights == 0) | (of_steps == 0)
            ratios = torch.where(usual, 1.0, (of_weights / of_steps).clamp(LOWEST, HIGHEST))
            torch._foreach_mul_(steps, list(ratios * -group["lr"]))
            torch._foreach_add_(weights, steps)


def build(kind: str, parameters: list[torch.nn.Parameter], params: dict[str, Any], trust: float | None) -> Any:
    """LARS or LAMB with the parameters of DeepSpeed's `optimizer` block for SGD, Adam or AdamW."""
    known = {key: value for key, value in params.items() if key not in IGNORED}
    if kind == "LARS":
        return Lars(parameters, **known, **({} if trust is None else {"trust": trust}))
    return Lamb(parameters, **known)


def _norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(tensor,) float32: the norm of each tensor."""
    return torch.stack(torch._foreach_norm(list(tensors))).float()


def _one_dimensional(weights: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.tensor([w.ndim <= 1 for w in weights], device=weights[0].device)
