"""A trained network over a whole domain: from the forecast that a user has to a CF file. Needs no deepspeed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr import __version__
from dsr.data import output as outputs
from dsr.data.archive import open_archive, static_fields
from dsr.data.calendar import when
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.grid import EDGE, Grid, block_mean
from dsr.data.joined import Joined
from dsr.data.pairing import AnyArchive, intervals
from dsr.data.series import Frame
from dsr.errors import UserError
from dsr.models.networks import NETWORKS
from dsr.progress import bar
from dsr.run import Run
from dsr.run.checkpoints import read_model

if TYPE_CHECKING:
    import torch

    from dsr.data.store import Variable

POINTS = 2**20  # high-resolution points that go through the network at once, so that memory is bounded


@dataclass(frozen=True)
class Network:
    """A trained network, from physical low-resolution fields to physical high-resolution fields."""

    module: torch.nn.Module
    features: Features
    domain: Domain
    description: dict[str, Any]  # model.json

    def __call__(self, low: np.ndarray, init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
        """Predict n samples, a few at a time.

        low: (n, [member,] variable, y, x) float32, physical units; init_time and lead_time: (n) int64 seconds.
        Returns (n, variable, Y, X) float32, physical units, clipped at the variables' bounds. Raises UserError where
        low values are missing and the features do not fill them.
        """
        import torch

        device = next(self.module.parameters()).device
        height, width = self.features.shape
        high = np.empty((len(low), len(self.features.high), height, width), np.float32)
        batch = max(1, POINTS // (height * width))
        for start in range(0, len(low), batch):
            some = slice(start, start + batch)
            inputs, base = self.features.inputs(low[some], init_time[some], lead_time[some])
            with torch.inference_mode():
                output = self.module(torch.from_numpy(inputs).to(device)).cpu().numpy()
            high[some] = self.features.physical(base, output)
        return high


def load(model_folder: Path) -> Network:
    """Read a network from a run's model folder, verified, onto the accelerator where there is one.

    Raises UserError where there is none, or where it names code that is not allowed, and
    `dsr.run.checkpoints.Damaged` where it is not what was written.
    """
    if not (model_folder / "model.json").exists():
        raise UserError(f"{model_folder}: no trained network there; it is written at a run's first validation")
    parameters, tensors, description = read_model(model_folder)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    features = Features.restore(description["features"], arrays)
    domain = Domain.restore(description["domain"], arrays)
    try:
        module = _module(description, features, parameters)
    except UserError as error:
        raise UserError(f"{model_folder}: {error}") from None
    return Network(module, features, domain, description)


def _module(description: dict[str, Any], features: Features, parameters: dict[str, Any]) -> torch.nn.Module:
    """The network for these features, with these parameters; its buffers, which training never changes, are as built.

    Raises UserError where the description names what is no network here, or one of other parameters.
    """
    import torch

    module = NETWORKS.make(description["network"]).build(features)
    names = dict(module.named_parameters()).keys()
    loaded = module.load_state_dict(parameters, strict=False)
    if wrong := [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if name in names)]:
        raise UserError(f"its parameters are not those of {description['network']['name']}: {wrong[0]}")
    return module.float().eval().to("cuda" if torch.cuda.is_available() else "cpu")


def predict(
    run: Path,
    inputs: list[str],
    output: Path,
    *,
    fill: bool = False,
    grid: Path | None = None,
    static: Path | None = None,
) -> str:
    """Downscale every forecast of `inputs` (paths, globs, URLs) with RUN/model; write `output` (.nc or .zarr).

    The input holds the training's low variables, under their names or the recipe's, at any times and leads, on the
    training's low grid; or, where training coarsened its input, as fine as the high grid: it is then coarsened too.
    A network trained on an ensemble takes its members together; any other predicts each member separately. The files
    `grid` and `static` take the network to another high grid. Fields are read and written one by one.

    Returns a summary for people. Raises UserError where the input or the output path is wrong, OSError where
    reading or writing fails later; `output` is whole or absent afterwards.
    """
    outputs.check(output)
    if static and not grid:
        raise UserError("--static goes with --grid: for its own domain the network has its static fields")
    network = load(Run(run).model)
    domain, features = network.domain, replace(network.features, fill=fill or network.features.fill)
    archive = _open(inputs, network)
    features = replace(features, calendar=archive.calendar)
    high = open_archive([str(grid)], static=True).grid if grid else domain.high
    factor = _coarsening(domain, archive.grid, high)
    low_grid = archive.grid.coarsened(factor) if factor > 1 else archive.grid
    cells = archive.grid.area() if factor > 1 else None
    rows, columns = (slice(None), slice(None)) if grid else _part(domain.low, low_grid, archive.name)
    if grid:
        features = _elsewhere(network, features, high, low_grid, static)
        module = _module(network.description, features, network.module.state_dict())
        network = replace(network, module=module)
    trained_on, network = network.features, replace(network, features=features)
    reach = _Reach.of(features)
    members = None if features.ensemble or archive.members is None else _numbers(archive.members)
    order = _order(archive)
    init_time, lead_time = archive.init_time[order], archive.lead_time[order]
    with (
        bar() as progress,
        outputs.create(
            output,
            high,
            features.high,
            init_time,
            lead_time,
            bounds=_bounds(network, archive, order),
            members=members,
            calendar=archive.calendar,
            attributes=_attributes(run, network, archive),
        ) as arrays,
    ):
        task = progress.add_task("predict", total=len(order))
        for i, frame in enumerate(order.tolist()):
            low = archive.read(frame)
            low = low if cells is None else block_mean(low, cells, factor)
            if features.ensemble and archive.members is None:
                low = low[None]  # one forecast is its own control, and its own mean
            low = low[..., rows, columns] if members else low[None, ..., rows, columns]
            reach.add(low)
            try:
                fields = network(low, np.full(len(low), init_time[i]), np.full(len(low), lead_time[i]))
            except UserError as error:
                raise UserError(f"{archive.name}, {when(archive.frames[frame], archive.calendar)}: {error}") from None
            for variable, field in zip(features.high, fields.swapaxes(0, 1), strict=True):
                arrays[variable.name][..., i, :, :] = field if members else field[0]
            progress.advance(task)
    cautions = [*_other_calendar(trained_on, features), *reach.cautions()]
    return "\n".join([_summary(output, network, archive, high, factor), *cautions])


@dataclass
class _Reach:
    """How far the low fields given to a network reach beyond those of its training, for each variable."""

    variables: list[Variable]
    trained: dict[str, np.ndarray]  # minimum, maximum, std: (variable) float64
    lowest: np.ndarray
    highest: np.ndarray
    beyond: np.ndarray  # (variable) int64: the values more than one standard deviation beyond minimum or maximum
    count: np.ndarray

    @classmethod
    def of(cls, features: Features) -> _Reach:
        keys, n = ("minimum", "maximum", "std"), len(features.low)
        trained = {key: np.array([features.statistics["low"][v.name][key] for v in features.low]) for key in keys}
        return cls(features.low, trained, np.full(n, np.inf), np.full(n, -np.inf), np.zeros(n, int), np.zeros(n, int))

    def add(self, low: np.ndarray) -> None:
        """Count fields, (n, [member,] variable, y, x) in physical units; what is missing is left out."""
        values = np.moveaxis(low, -3, 0).reshape(len(self.variables), -1)
        least, most = (self.trained[key][:, None] for key in ("minimum", "maximum"))
        std = self.trained["std"][:, None]
        self.lowest = np.fmin(self.lowest, np.fmin.reduce(values, axis=1))
        self.highest = np.fmax(self.highest, np.fmax.reduce(values, axis=1))
        self.beyond += ((values < least - std) | (values > most + std)).sum(1)
        self.count += np.isfinite(values).sum(1)

    def cautions(self) -> list[str]:
        """One line for each variable that reaches far beyond its training."""
        return [
            f"caution: {variable.name} is {self.lowest[i]:.4g} to {self.highest[i]:.4g} {variable.units} in the input, "
            f"{self.trained['minimum'][i]:.4g} to {self.trained['maximum'][i]:.4g} in training; "
            f"{100 * self.beyond[i] / self.count[i]:.2g} % of its values lie beyond that by more than a standard "
            f"deviation ({self.trained['std'][i]:.3g})"
            for i, variable in enumerate(self.variables)
            if self.beyond[i]
        ]


def _other_calendar(trained_on: Features, features: Features) -> list[str]:
    if not features.seasonal or features.calendar == trained_on.calendar:
        return []
    return [
        f"caution: the input's calendar is {features.calendar}, that of training was {trained_on.calendar}; the season "
        "is taken from how far a date is in its own year"
    ]


def _open(inputs: list[str], network: Network) -> AnyArchive:
    """The network's low variables, read as the training's recipe says and in the training's units."""
    features, domain = network.features, network.domain
    archives = [
        open_archive(inputs, choices, own_names=True, **domain.low_options(number))
        for number, choices in enumerate(domain.choices("low", features.low))
    ]
    archive = archives[0] if len(archives) == 1 else Joined(archives)
    if features.spread and archive.members is None:
        raise UserError(f"{archive.name}: a single forecast; the network sees the spread of an ensemble's members")
    return archive


def _numbers(members: list[int | str]) -> list[int]:
    """What a file's realization holds: the members' numbers, or counts where they have names."""
    return [number if isinstance(number, int) else i for i, number in enumerate(members)]


def _coarsening(domain: Domain, given: Grid, high: Grid) -> int:
    """What to coarsen the input by: the training's factor where that coarsened, and the input is as fine as `high`."""
    step = np.median(np.abs(np.diff(high.index_on(given)[0], axis=0)))  # from one high row to the next
    return domain.factor if domain.coarsened and step > domain.factor**-0.5 else 1


def _part(wanted: Grid, given: Grid, name: str) -> tuple[Any, Any]:
    """The rows (n, 1) and columns (n) of the grid `given` that are `wanted`; it may reach further or run otherwise.

    Raises UserError where the points of `wanted` are not there, side by side.
    """
    index = wanted.index_on(given)
    rows, columns = np.rint(index[0][:, 0]).astype(int), np.rint(index[1][0]).astype(int)
    off = max(np.abs(index[0] - rows[:, None]).max(), np.abs(index[1] - columns).max())
    steps = [np.abs(np.diff(rows)), np.abs(np.diff(columns))]
    if given.period is not None:
        columns %= given.period
        steps[1] = np.minimum(steps[1], given.period - steps[1])
    inside = all(i.min() >= 0 and i.max() < size for i, size in zip((rows, columns), given.shape, strict=True))
    if off > EDGE or not inside or any(np.any(step != 1) for step in steps):
        raise UserError(
            f"{name}: lies on {given.describe()}, but the network was trained on {wanted.describe()}; "
            "--grid and --static take it to another domain"
        )
    return rows[:, None], columns


def _elsewhere(network: Network, features: Features, high: Grid, low: Grid, static: Path | None) -> Features:
    """The features on another high grid, from another low grid. Raises UserError where that cannot be."""
    if NETWORKS.make(network.description["network"]).is_local:
        raise UserError("the network learned values for each place of its domain (dsr.model), so --grid cannot be")
    if features.static and not static:
        raise UserError(f"--grid needs --static: a file with {', '.join(v.name for v in features.static)} on that grid")
    index = high.index_on(low)
    if not low.covers(index).all():
        raise UserError(f"--grid covers {high.extent()}, which the input does not: {low.extent()}")
    fields = np.zeros((0, *high.shape), np.float32)
    if features.static:
        (choices,) = network.domain.choices("static", features.static)
        by_name = static_fields(open_archive([str(static)], choices, static=True, own_names=True), high)
        fields = np.stack([by_name[v.name] for v in features.static])
    sun = "solar_zenith" in features.extras
    return replace(
        features,
        low_shape=low.shape,
        low_index=index,
        periodic=high.periodic,
        static_fields=fields,
        latitude=high.latitude if sun else None,
        longitude=high.longitude if sun else None,
    )


def _order(archive: AnyArchive) -> np.ndarray:
    """The frames by valid time, where no two runs verify at the same time; otherwise by run."""
    valid = archive.init_time + archive.lead_time
    return np.argsort(valid) if len(np.unique(valid)) == len(valid) else np.arange(len(valid))


def _bounds(network: Network, archive: AnyArchive, order: np.ndarray) -> np.ndarray | None:
    """(frame, 2) int64 seconds between which sums, means and extremes of the output hold; None where it has none."""
    covering = [v.name for v in network.features.high if outputs.covers_period(v)]
    if not covering:
        return None
    given = [name for name in covering if name in {v.name for v in archive.variables}]
    bounds = []
    for init, lead in (archive.frames[i] for i in order):
        interval = archive.interval(given[0], Frame(init, lead)) if given else None
        start, end = interval or (lead + edge for edge in network.domain.interval)
        bounds.append((init + start, init + end))
    return np.array(bounds, np.int64)


def _attributes(run: Path, network: Network, archive: AnyArchive) -> dict[str, str]:
    """The global attributes of the output file."""
    name, citation = network.description["network"]["name"], network.domain.provenance.get("citation")
    return {
        "title": f"{', '.join(v.name for v in network.features.high)}, downscaled by a neural network",
        "source": f"dsr {__version__}: network {name} of {run}, from {archive.name}",
        **({"comment": f"The network was trained on: {citation}"} if citation else {}),
    }


def _summary(output: Path, network: Network, archive: AnyArchive, high: Grid, factor: int) -> str:
    runs, leads = np.unique(archive.init_time), archive.lead_time / 3600
    lines = [
        f"{output}: {', '.join(v.name for v in network.features.high)} on {high.describe()}",
        f"times: {len(archive.frames)}; runs: {len(runs)}, the first {when((int(runs[0]), 0), archive.calendar)}; "
        f"leads: {leads.min():g} to {leads.max():g} h; members: {len(archive.members or [0])}",
    ]
    if factor > 1:
        lines.append(f"the input was coarsened x{factor}, as in training")
    lines += [f"times left out: {len(frames)} ({why})" for why, frames in archive.dropped.items()]
    usual = network.domain.interval[1] - network.domain.interval[0]
    for name, given in intervals(archive).items():
        lengths = sorted({round((end - start) * 3600) for start, end in given})
        if lengths != [usual]:
            hours = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
            lines.append(f"caution: {name} is over {hours} h; in training it was over {usual / 3600:g} h")
    return "\n".join(lines)
