"""Rule `adam-sde`: sqrt(k) times the rate, and betas and eps to match (Malladi et al. 2022, arXiv:2205.10287)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from dsr.errors import UserError
from dsr.scaling.rules import Rule, Scaled

if TYPE_CHECKING:
    from dsr.config import Experiment


class AdamSDE(Rule):
    """Adam only: sqrt(N) times the rate, 1 - beta times N for both betas, and eps / sqrt(N).

    The weight decay stays as it is: the paper does not treat it.
    """

    def scale(self, experiment: Experiment, k: int) -> Scaled:
        if experiment.optimizer_type not in ("Adam", "AdamW"):
            raise UserError(f"dsr.scaling.rule adam-sde is for Adam and AdamW, not for {experiment.optimizer_type}")
        params = experiment.deepspeed["optimizer"]["params"]
        # as fractions of what is written: 1 - 10 (1 - 0.9) is exactly 0
        betas = [Fraction(str(beta)) for beta in params.get("betas", (0.9, 0.999))]
        scaled = [1 - k * (1 - beta) for beta in betas]
        for i, beta in enumerate(betas):
            if scaled[i] <= 0:
                most = max(1, math.ceil(1 / max(1 - beta for beta in betas)) - 1)
                raise UserError(
                    f"dsr.scaling.rule adam-sde makes beta{i + 1} 1 - {k} x (1 - {float(beta):g}) = "
                    f"{float(scaled[i]):g} at {k} GPUs, and it must stay above 0; the rule reaches to {most} GPUs here"
                )
        eps = params.get("eps", 1e-8) / math.sqrt(k)
        return Scaled(math.sqrt(k), {"betas": [float(beta) for beta in scaled], "eps": eps})
