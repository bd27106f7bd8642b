"""From a config and a store to what every run needs: the experiment, the store's place, and how many samples it has."""

from dataclasses import dataclass
from pathlib import Path

from dsr import config
from dsr.config import Experiment
from dsr.data.store import Store
from dsr.data.stream import training_samples
from dsr.errors import Missing, UserError


@dataclass(frozen=True)
class Task:
    """An experiment that fits its store."""

    experiment: Experiment
    store: str  # an absolute path, or a URL
    samples: int  # of the training split
    fingerprint: str  # of the store


def resolve(
    path: Path | None, overrides: tuple[str, ...] = (), store: str | None = None, *, named: bool = True
) -> Task:
    """Load an experiment and check it against its store: the one given, the config's, or the built-in data.

    `named`: the user named that file, see `config.load`. Raises UserError for anything that would fail later:
    a variable that the store lacks, a weight of the loss for another variable, missing values in the low-resolution
    fields, a network's setting, a split without samples.
    """
    from dsr.data.features import Features

    experiment = config.load(path, overrides, named=named)
    model = experiment.dsr.model
    if model.is_local and experiment.dsr.data.patch is not None:
        raise UserError(
            f"dsr.model {model.name} learns values for each place here, so it needs whole fields: unset dsr.data.patch"
        )
    place = store or experiment.dsr.data.store
    if place is None:
        from dsr.data.simulate import builtin

        place = str(builtin())
    try:
        opened = Store(place)
    except Missing as error:
        raise error.with_origin(None if store else experiment.dsr.data.origin) from None
    features = Features.of(opened, experiment.dsr.data)
    experiment.dsr.loss.shares([variable.name for variable in features.high])
    if not len(opened.samples("validation")) or not opened.mask("validation").any():
        raise UserError(f"{place}: the validation split is empty, and the best network is chosen by it")
    absolute = place if "://" in place else str(Path(place).resolve())
    samples = training_samples(opened, experiment.dsr.data)
    return Task(experiment, absolute, samples, opened.fingerprint)
