"""A trained network applied to a whole domain: from a user's forecast to a CF file. Does not need deepspeed."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr import __version__
from dsr.data import output as outputs
from dsr.data.archive import Archive, open_archive, open_dataset, static_fields
from dsr.data.calendar import when
from dsr.data.cautions import Reach, other_calendar, other_intervals
from dsr.data.domain import Domain
from dsr.data.features import Features
from dsr.data.grid import EDGE, Grid, block_mean
from dsr.data.joined import Joined
from dsr.data.pairing import AnyArchive
from dsr.data.series import Frame
from dsr.errors import UserError
from dsr.models.networks import NETWORKS
from dsr.progress import bar
from dsr.run import Run
from dsr.run.checkpoints import read_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from dsr.models.downscaler import Downscaler

POINTS = 2**20  # high-resolution points that go through the network at once, so that memory is bounded


@dataclass(frozen=True)
class Network:
    """A trained network, from physical low-resolution fields to physical high-resolution fields."""

    module: Downscaler
    features: Features
    domain: Domain
    description: dict[str, Any]  # model.json

    def __call__(self, low: np.ndarray, init_time: np.ndarray, lead_time: np.ndarray) -> np.ndarray:
        """Predict n samples, a few at a time.

        low: (n, [member,] variable, y, x) float32, physical units; init_time and lead_time: (n) int64 seconds.
        Returns (n, variable, Y, X) float32, physical units, clipped at the variables' bounds. Raises UserError where
        low values are missing and the features do not fill them.
        """
        height, width = self.features.shape
        high = np.empty((len(low), len(self.features.high), height, width), np.float32)
        batch = max(1, POINTS // (height * width))
        for start in range(0, len(low), batch):
            some = slice(start, start + batch)
            given = self.features.arguments(low[some], init_time[some], lead_time[some])
            high[some], _ = self.module.predict(*given)
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


def _module(description: dict[str, Any], features: Features, parameters: dict[str, Any]) -> Downscaler:
    """The network for these features, with these parameters and buffers; a buffer that is not there is as built.

    Raises UserError if the description names an unknown network, or one with other parameters.
    """
    import torch

    from dsr.models.downscaler import Downscaler

    network = NETWORKS.make(description["network"]).build(features)
    names = dict(network.named_parameters()).keys()
    loaded = network.load_state_dict(parameters, strict=False)
    if wrong := [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if name in names)]:
        raise UserError(f"its parameters are not those of {description['network']['name']}: {wrong[0]}")
    module = Downscaler(features, network.float()).eval()
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


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

    The input has the low variables of training, under their names or the recipe's, at any times and lead times, on the
    low grid of training; or, if training coarsened its input, on a grid as fine as the high one: it is then coarsened
    too. A network trained on an ensemble uses all members together; any other predicts each member separately. The
    files `grid` and `static` apply the network to another high grid. Fields are read and written one by one.

    Returns a summary. Raises UserError if the input or the output path is wrong, OSError if reading or writing fails
    later; afterwards, `output` is either complete or absent.
    """
    outputs.check(output)
    if static and not grid:
        raise UserError("--static needs --grid: for the domain of training, the network has its static fields")
    network = load(Run(run).model)
    archive = _open(network, functools.partial(open_archive, inputs))
    forecast = Forecast.of(run, network, archive, fill=fill, grid=grid, static=static)
    with bar() as progress, outputs.create(output, **forecast.layout) as arrays:
        task = progress.add_task("predict", total=len(forecast.order))
        for i in range(len(forecast.order)):
            for variable, field in zip(forecast.network.features.high, forecast.fields(i), strict=True):
                arrays[variable.name][..., i, :, :] = field
            progress.advance(task)
    return "\n".join([f"{output}: {forecast.summary()}", *forecast.cautions()])


def downscaler(run: Path | str) -> Callable[[xr.Dataset], xr.Dataset]:
    """The trained network of a run as a function from a low-resolution dataset to a high-resolution one.

    The input dataset has the low variables of training, as for `dsr predict`: [member,] time, y, x, in any compatible
    units. The output is what `dsr predict` writes: float32 ([realization,] time, y, x) in the units of training, with
    CF attributes. If the input has dask arrays, so has the output, one chunk per forecast, and nothing is read or
    computed before it is needed. Doubts about the input are UserWarnings.

    Raises UserError if there is no trained network, or the dataset does not fit it.

    >>> import dsr
    >>> low = dsr.open_store("small.zarr")["low"].to_dataset().isel(sample=slice(3)).swap_dims(sample="time")
    >>> high = dsr.load("runs/small")(low)
    >>> dict(low["t2m"].sizes)
    {'time': 3, 'member': 2, 'y': 6, 'x': 6}
    >>> dict(high["t2m"].sizes)  # this network was trained on the ensemble, and uses its members together
    {'time': 3, 'y': 24, 'x': 24}
    """
    network = load(Run(Path(run)).model)

    def downscale(dataset: xr.Dataset) -> xr.Dataset:
        archive = _open(network, functools.partial(open_dataset, dataset))
        forecast = Forecast.of(Path(run), network, archive)
        result = forecast.dataset(lazy=bool(dataset.chunks))
        for caution in forecast.cautions():
            warnings.warn(caution, stacklevel=2)
        return result

    return downscale


@dataclass(frozen=True)
class Forecast:
    """Low-resolution forecasts and the network that downscales them, one valid time of one run after the other."""

    run: Path
    network: Network  # for the grid `high`
    trained_on: Features
    archive: AnyArchive
    high: Grid
    factor: int  # by which the input is coarsened
    part: tuple[Any, Any]  # rows and columns of the low grid that the network uses
    order: np.ndarray  # (time) int64: the archive's frames
    reach: Reach

    @classmethod
    def of(
        cls,
        run: Path,
        network: Network,
        archive: AnyArchive,
        *,
        fill: bool = False,
        grid: Path | None = None,
        static: Path | None = None,
    ) -> Forecast:
        """Raises UserError if the archive does not fit the network, or the network does not fit the grid."""
        domain = network.domain
        features = replace(network.features, fill=fill or network.features.fill, calendar=archive.calendar)
        high = open_archive([str(grid)], static=True).grid if grid else domain.high
        factor = _coarsening(domain, archive.grid, high)
        low_grid = archive.grid.coarsened(factor) if factor > 1 else archive.grid
        part = (slice(None), slice(None)) if grid else _part(domain.low, low_grid, archive.name)
        module = network.module
        if grid:
            features = _for_grid(network, features, high, low_grid, static)
            module = _module(network.description, features, network.module.network.state_dict())
        fitted = replace(network, features=features, module=module)
        order = _order(archive)
        return cls(run, fitted, network.features, archive, high, factor, part, order, Reach.of(features))

    @property
    def members(self) -> list[int] | None:
        """The member numbers of the output; None if it has none."""
        archive = self.archive
        return None if self.network.features.ensemble or archive.members is None else _numbers(archive.members)

    @functools.cached_property
    def cells(self) -> np.ndarray | None:
        """(y, x) areas of the input's cells, if it is coarsened."""
        return self.archive.grid.area() if self.factor > 1 else None

    @property
    def layout(self) -> dict[str, Any]:
        """The output, as keywords of `dsr.data.output.describe`."""
        return {
            "grid": self.high,
            "variables": self.network.features.high,
            "init_time": self.archive.init_time[self.order],
            "lead_time": self.archive.lead_time[self.order],
            "bounds": _bounds(self.network, self.archive, self.order),
            "members": self.members,
            "calendar": self.archive.calendar,
            "attributes": _attributes(self.run, self.network, self.archive),
        }

    def fields(self, i: int) -> np.ndarray:
        """(variable, [member,] y, x) float32 of the i-th time. Raises UserError for impossible values."""
        archive, frame = self.archive, int(self.order[i])
        low = archive.read(frame)
        low = low if self.cells is None else block_mean(low, self.cells, self.factor)
        if self.network.features.ensemble and archive.members is None:
            low = low[None]  # a single forecast is both control and mean
        rows, columns = self.part
        low = low[..., rows, columns] if self.members else low[None, ..., rows, columns]
        self.reach.add(low)
        init, lead = (np.full(len(low), times[frame]) for times in (archive.init_time, archive.lead_time))
        try:
            fields = self.network(low, init, lead)
        except UserError as error:
            raise UserError(f"{archive.name}, {when(archive.frames[frame], archive.calendar)}: {error}") from None
        return fields.swapaxes(0, 1) if self.members else fields[0]

    def dataset(self, lazy: bool) -> xr.Dataset:
        """The output in memory, or as dask arrays with one chunk for each time."""
        import xarray as xr

        from dsr.data.decoding.lazy import Key, computed

        coordinates, dims, attributes = outputs.describe(**self.layout)
        along = dims[-3]
        stacked = (along, "variable", *(dim for dim in dims if dim != along))
        sizes = {**coordinates.sizes, "variable": len(attributes)}

        def compute(key: Key) -> np.ndarray:
            times = range(len(self.order))[key[0]]
            if isinstance(times, int):
                return self.fields(times)[key[1:]]
            return np.stack([self.fields(i) for i in times])[(slice(None), *key[1:])]

        shape = tuple(sizes[dim] for dim in stacked)
        fields = xr.DataArray(computed(stacked, shape, {}, compute, np.float32))
        fields = fields.chunk({along: 1}, lock=True) if lazy else fields.load()
        values = {
            name: fields.isel(variable=i).transpose(*dims).assign_attrs(attributes[name])
            for i, name in enumerate(attributes)
        }
        return xr.decode_cf(coordinates.assign(values), decode_timedelta=True)

    def summary(self) -> str:
        """A summary of the output in a few lines."""
        archive, names = self.archive, ", ".join(v.name for v in self.network.features.high)
        runs, leads = np.unique(archive.init_time), archive.lead_time / 3600
        lines = [
            f"{names} on {self.high.describe()}",
            f"times: {len(archive.frames)}; runs: {len(runs)}, the first {when((int(runs[0]), 0), archive.calendar)}; "
            f"leads: {leads.min():g} to {leads.max():g} h; members: {len(archive.members or [0])}",
        ]
        if self.factor > 1:
            lines.append(f"the input was coarsened by {self.factor}, as in training")
        lines += [f"times left out: {len(frames)} ({why})" for why, frames in archive.dropped.items()]
        return "\n".join(lines)

    def cautions(self) -> list[str]:
        """How the input differs from that of training, as far as it has been read."""
        lengths = other_intervals(self.network.domain, self.archive)
        return [*lengths, *other_calendar(self.trained_on, self.network.features), *self.reach.cautions()]


def _open(network: Network, opened: Callable[..., Archive]) -> AnyArchive:
    """The network's low variables, read by the recipe of training and in its units."""
    features, domain = network.features, network.domain
    archives = [
        opened(choices, accept_key_as_name=True, **domain.low_options(number))
        for number, choices in enumerate(domain.choices("low", features.low))
    ]
    archive = archives[0] if len(archives) == 1 else Joined(archives)
    if features.spread and archive.members is None:
        raise UserError(f"{archive.name}: a single forecast, but the network uses the spread of an ensemble")
    return archive


def _numbers(members: list[int | str]) -> list[int]:
    """The values of realization: member numbers, or counts if members have names."""
    return [number if isinstance(number, int) else i for i, number in enumerate(members)]


def _coarsening(domain: Domain, given: Grid, high: Grid) -> int:
    """The factor to coarsen the input by: that of training if it coarsened, and the input is as fine as `high`."""
    step = np.median(np.abs(np.diff(high.index_on(given)[0], axis=0)))  # between high rows
    return domain.factor if domain.coarsened and step > domain.factor**-0.5 else 1


def _part(wanted: Grid, given: Grid, name: str) -> tuple[Any, Any]:
    """The rows (n, 1) and columns (n) of the grid `given` that form `wanted`; it may be larger or in another direction.

    Raises UserError if the points of `wanted` are not all there, side by side.
    """
    index = wanted.index_on(given)
    rows, columns = np.rint(index[0][:, 0]).astype(int), np.rint(index[1][0]).astype(int)
    offset = max(np.abs(index[0] - rows[:, None]).max(), np.abs(index[1] - columns).max())
    steps = [np.abs(np.diff(rows)), np.abs(np.diff(columns))]
    if given.period is not None:
        columns %= given.period
        steps[1] = np.minimum(steps[1], given.period - steps[1])
    inside = all(i.min() >= 0 and i.max() < size for i, size in zip((rows, columns), given.shape, strict=True))
    if offset > EDGE or not inside or any(np.any(step != 1) for step in steps):
        raise UserError(
            f"{name}: is on {given.describe()}, but the network was trained on {wanted.describe()}; "
            "--grid and --static apply it to another domain"
        )
    return rows[:, None], columns


def _for_grid(network: Network, features: Features, high: Grid, low: Grid, static: Path | None) -> Features:
    """The features on another high grid, from another low grid. Raises UserError if that is impossible."""
    if NETWORKS.make(network.description["network"]).is_local:
        raise UserError("the network learned values for each point of its domain (dsr.model), so --grid is impossible")
    if features.static and not static:
        raise UserError(f"--grid needs --static: a file with {', '.join(v.name for v in features.static)} on that grid")
    index = high.index_on(low)
    if not low.covers(index).all():
        raise UserError(f"--grid covers {high.extent()}, but the input only {low.extent()}")
    fields = np.zeros((0, *high.shape), np.float32)
    if features.static:
        (choices,) = network.domain.choices("static", features.static)
        by_name = static_fields(open_archive([str(static)], choices, static=True, accept_key_as_name=True), high)
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
    """The frames by valid time, if no two runs have the same; otherwise by run."""
    valid = archive.init_time + archive.lead_time
    return np.argsort(valid) if len(np.unique(valid)) == len(valid) else np.arange(len(valid))


def _bounds(network: Network, archive: AnyArchive, order: np.ndarray) -> np.ndarray | None:
    """(frame, 2) int64 seconds between which sums, means and extremes of the output are taken; None if it has none."""
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
