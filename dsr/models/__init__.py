"""The registry of networks: their names, their settings, and how one is built. Imports torch only to build."""

import importlib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsr.config import Model
from dsr.errors import UserError
from dsr.settings import first_problem

if TYPE_CHECKING:
    import torch

    from dsr.data.features import Features


class DeepDownscale(BaseModel):
    """Settings of the network `deepdownscale`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    width: int = Field(48, gt=0, description="channels of the hidden layers")
    blocks: int = Field(3, ge=0, description="residual blocks of two 3 x 3 convolutions")
    fold: int = Field(4, gt=0, description="high cells along each side that are folded into one hidden cell")
    patterns: int = Field(16, ge=0, description="patterns on the high grid, made from the static fields")
    place: bool = Field(False, description="learn as many patterns for every place: binds the network to its domain")
    dropout: float = Field(0.0, ge=0, lt=1)


NETWORKS: dict[str, type[BaseModel]] = {"deepdownscale": DeepDownscale}  # each has a module of that name here


def settings(model: Model) -> Any:
    """The typed settings of `dsr.model`. Raises UserError for an unknown network or setting."""
    if model.name not in NETWORKS:
        raise UserError(f"dsr.model.name {model.name!r} is not one of {', '.join(NETWORKS)}")
    kind = NETWORKS[model.name]
    try:
        return kind.model_validate(model.model_extra or {})
    except ValidationError as error:
        raise UserError(f"dsr.model ({model.name}): {first_problem(error, kind)}") from None


def check(model: Model, patch: int | None) -> None:
    """Refuse, with UserError, settings that do not fit the data settings."""
    chosen = settings(model)
    if getattr(chosen, "place", False) and patch is not None:
        raise UserError(
            "dsr.model.place learns one value for every place, so it needs whole fields: unset dsr.data.patch"
        )


def build(model: Model, features: "Features") -> "torch.nn.Module":
    """A fresh network for these features: (n, channel, Y, X) -> (n, variable, Y, X), both float32."""
    chosen = settings(model)  # first: it refuses any other name
    module = importlib.import_module(f"dsr.models.{model.name}")
    channels, outputs = len(features.channels), len(features.high)
    return module.build(chosen, channels, features.static_channels, outputs, features.shape, features.periodic)
