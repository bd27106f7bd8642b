"""The built-in data: the physical model of `atmosphere`, run on a fine and a coarse grid, as a paired store."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import atmosphere
from dsr.data.atmosphere import Atmosphere, State, Surroundings
from dsr.data.grid import Grid
from dsr.data.manifest import FORMAT
from dsr.data.store import SPLITS, Layout, Store, Variable
from dsr.data.writer import Writer
from dsr.files import cache_folder
from dsr.progress import bar

STEP = 900  # s, of the slow physics on every grid
FASTEST = 80.0  # m s-1: no step of the dynamics is longer than a cell over this, which keeps them stable
CENTRE = (45.0, 10.0)  # degrees north and east, middle of the domain
FIRST = 1_577_836_800  # 2020-01-01 00 UTC, the first initial time
BETWEEN = 126 * 3600  # s between initial times: 5 days and 6 hours, so that every season and hour occurs
TERRAIN_SPREAD = 220.0  # m
TERRAIN_MEAN = 150.0  # m; terrain below 0 becomes a plain at 0
RANGE_WIDTH = 256e3  # m: the longest waves of the fractal terrain, beyond which its spectrum is flat
WIND_ALOFT = (1.0, 9.0)  # m s-1, slowest and fastest; all directions are equally likely
WIND_EDDIES = 2.5  # m s-1, standard deviation of each component of the balanced flow within the domain
FLOW_SCALE = 320e3  # m: wavelength below which the flow's kinetic energy falls as k^-3
AIR_MASSES = 2.0  # K, standard deviation of potential temperature
MOISTURE = (0.75, 0.15)  # mean and standard deviation of the initial relative humidity
ANALYSIS_ERROR = 0.1  # share of the above: initial deviation of a perturbed member from the truth
RUNS_AT_ONCE = 14  # enough for numpy's work to outweigh Python's overhead, few enough for a core's cache

VARIABLES = {
    "t2m": Variable("t2m", "K", "air_temperature", "air temperature at 2 m", "time: point"),
    "u10": Variable("u10", "m s-1", "eastward_wind", "eastward wind at 10 m", "time: point"),
    "v10": Variable("v10", "m s-1", "northward_wind", "northward wind at 10 m", "time: point"),
    "tp": Variable(
        "tp", "kg m-2", "precipitation_amount", "precipitation since the lead before", "time: sum", lower=0.0
    ),
    "msl": Variable(
        "msl",
        "Pa",
        "air_pressure_at_mean_sea_level",
        "pressure at mean sea level, without the uniform gradient that balances the wind aloft",
        "time: point",
    ),
    "q": Variable("q", "kg kg-1", "specific_humidity", "specific humidity of the layer", "time: point", lower=0.0),
}
TERRAIN = Variable("h", "m", "surface_altitude", "height of the terrain")


@dataclass(frozen=True)
class Settings:
    """The settings of the built-in data.

    `size` and `spacing` (m) refer to the fine grid; the coarse one has 1/`factor` of its rows. `train`, `validation`
    and `test` count independent initial states, each with forecasts for `leads` lead times, `interval` hours apart, by
    a control and `members` - 1 perturbed members. The fine model runs freely for `spinup` hours before each forecast.
    `flat` removes the terrain and `dry` the water (and with it the variables tp and q).
    """

    seed: int = 1
    size: int = 96
    spacing: float = 8000.0
    factor: int = 4
    train: int = 108
    validation: int = 12
    test: int = 20
    leads: int = 12
    interval: int = 2
    members: int = 4
    spinup: int = 12
    flat: bool = False
    dry: bool = False

    @property
    def runs(self) -> int:
        return self.train + self.validation + self.test

    @property
    def high_variables(self) -> list[Variable]:
        return [VARIABLES[name] for name in ("t2m", "u10", "v10", "tp", "msl") if not (self.dry and name == "tp")]

    @property
    def low_variables(self) -> list[Variable]:
        return self.high_variables + ([] if self.dry else [VARIABLES["q"]])


def simulate(path: Path | str, settings: Settings = Settings()) -> None:
    """Run the model for every initial state at both resolutions and write the store `path`.

    The same settings give the same fingerprint on the same machine. Raises UserError if `path` exists.

    >>> import dsr
    >>> from dsr.data.simulate import Settings
    >>> dsr.simulate("tiny.zarr", Settings(size=16, train=2, validation=1, test=1, leads=3, members=2, spinup=1))
    >>> dict(dsr.open_store("tiny.zarr")["low"]["t2m"].sizes)  # 4 initial states with 3 leads each
    {'sample': 12, 'member': 2, 'y': 4, 'x': 4}
    """
    runs = np.arange(settings.runs)
    groups = [runs[start : start + RUNS_AT_ONCE] for start in range(0, len(runs), RUNS_AT_ONCE)]
    with Writer(Path(path), layout(settings)) as writer, ThreadPoolExecutor(os.cpu_count()) as pool, bar() as progress:
        task = progress.add_task("simulate", total=len(groups))
        done = pool.map(lambda group: [*forecasts(settings, group)], groups)
        for group, pairs in zip(groups, done, strict=True):
            for lead, (high, low) in enumerate(pairs):
                if not (np.isfinite(high).all() and np.isfinite(low).all()):
                    raise FloatingPointError(f"the model became unstable in one of the runs {group[0]} to {group[-1]}")
                for i, run in enumerate(group):
                    writer.high[run * settings.leads + lead] = high[i]
                    writer.low[run * settings.leads + lead] = low[i]
            progress.advance(task)


def builtin(settings: Settings = Settings()) -> Path:
    """The store of these settings in the user's cache folder, made once."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"builtin-{key(settings)}.zarr"
    if not path.exists():
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # another process may have made it while this one waited
                simulate(path, settings)
    return path


def key(settings: Settings) -> str:
    """A short hash of the settings, the version of the model and the store's format."""
    text = json.dumps({"format": FORMAT, "version": atmosphere.VERSION, **asdict(settings)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def forecasts(settings: Settings, runs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for every lead, the fine model's (run, variable, Y, X) and the coarse one's (run, member, variable, y, x).

    Each run is keyed by its number, so that it does not depend on the runs computed with it.
    """
    fine, coarse = models(settings)
    truth, around = initial(settings, fine, runs)
    for _ in range(settings.spinup * 3600 // STEP):
        fine.advance(truth, around)
    truth = atmosphere.fresh(truth)
    forecast, around_forecast = ensemble(settings, coarse, truth, around, runs)
    for _ in range(settings.leads):
        for _ in range(settings.interval * 3600 // STEP):
            fine.advance(truth, around)
            coarse.advance(forecast, around_forecast)
        high, low = fine.diagnose(truth), coarse.diagnose(forecast)
        truth.rain[:], forecast.rain[:] = 0, 0
        fields = np.stack([low[v.name] for v in settings.low_variables], 1)
        yield (
            np.stack([high[v.name] for v in settings.high_variables], 1),
            fields.reshape(len(runs), settings.members, *fields.shape[1:]),
        )


def models(settings: Settings) -> tuple[Atmosphere, Atmosphere]:
    """The same equations on the fine grid and on the coarse one, with its block-averaged terrain."""
    size, factor = settings.size, settings.factor
    terrain = fractal_terrain(settings)
    coarse_terrain = terrain.reshape(size // factor, factor, size // factor, factor).mean((1, 3))

    def model(h: np.ndarray, spacing: float) -> Atmosphere:
        return Atmosphere(h, spacing, *geographic(len(h), spacing), STEP, ceil(STEP * FASTEST / spacing), settings.dry)

    return model(terrain, settings.spacing), model(coarse_terrain, settings.spacing * factor)


def fractal_terrain(settings: Settings) -> np.ndarray:
    """(y, x) float32 m: self-affine (power as k^-2 along a line), no waves longer than a mountain range is wide."""
    if settings.flat:
        return np.zeros((settings.size, settings.size), np.float32)
    rng = np.random.default_rng([settings.seed, 0])
    shape = random_field(rng, settings.size, settings.spacing, RANGE_WIDTH, 1.5)
    return np.maximum(TERRAIN_MEAN + TERRAIN_SPREAD * shape, 0).astype(np.float32)


def random_field(rng: np.random.Generator, size: int, spacing: float, wavelength: float, power: float) -> np.ndarray:
    """(y, x) float64, periodic and Gaussian, mean 0, variance 1, 2-D spectrum (1 + (k wavelength / 2 pi)^2)^-power."""
    k = np.fft.fftfreq(size, spacing)  # m-1, cycles
    amplitude = (1 + (k[:, None] ** 2 + k**2) * wavelength**2) ** (-power / 2)
    amplitude[0, 0] = 0
    white = np.fft.fft2(rng.standard_normal((size, size)))
    return np.fft.ifft2(white * amplitude / np.sqrt((amplitude**2).mean())).real


def initial(settings: Settings, fine: Atmosphere, runs: np.ndarray) -> tuple[State, Surroundings]:
    """Independent random states `spinup` hours before the forecasts start: balanced winds, air masses, moisture."""
    rngs = [np.random.default_rng([settings.seed, 1, run]) for run in runs]
    speed, direction = np.stack([rng.uniform((WIND_ALOFT[0], 0), (WIND_ALOFT[1], 2 * np.pi)) for rng in rngs]).T
    aloft = np.stack([speed * np.cos(direction), speed * np.sin(direction)], 1).astype(np.float32)
    u, v, top, theta, moisture = flow(rngs, settings.size, settings.spacing)
    around = Surroundings(aloft, init_times(settings)[runs] - settings.spinup * 3600)
    depth = atmosphere.DEPTH + top - fine.terrain
    theta = theta + atmosphere.seasonal(around.time)[:, None, None]
    middle = theta + atmosphere.REFERENCE - atmosphere.LAPSE * (fine.terrain + 0.5 * depth)
    relative = np.clip(MOISTURE[0] + MOISTURE[1] * moisture, 0.2, atmosphere.ONSET)
    humidity = 0 * middle if settings.dry else relative * atmosphere.saturation(middle)
    fields = {
        "u": u + aloft[:, 0, None, None],
        "v": v + aloft[:, 1, None, None],
        "depth": depth,
        "heat": depth * theta,
        "water": depth * humidity,
    }
    fields |= {name: np.zeros_like(depth) for name in ("surface", "rain", "evaporated")}
    return State(**{name: fields[name].astype(np.float32) for name in atmosphere.FIELDS}), around


def flow(rngs: list[np.random.Generator], size: int, spacing: float) -> tuple[np.ndarray, ...]:
    """Balanced u, v (m s-1), eta (m), potential temperature (K) and moisture (standardised), each (run, y, x)."""
    streams = np.stack([random_field(rng, size, spacing, FLOW_SCALE, 3) for rng in rngs])
    u, v, top = atmosphere.balanced(streams, spacing)
    scale = WIND_EDDIES / np.sqrt(0.5 * (u**2 + v**2).mean((1, 2), keepdims=True))
    theta = AIR_MASSES * np.stack([random_field(rng, size, spacing, FLOW_SCALE, 2) for rng in rngs])
    moisture = np.stack([random_field(rng, size, spacing, FLOW_SCALE, 2) for rng in rngs])
    return scale * u, scale * v, scale * top, theta, moisture


def ensemble(
    settings: Settings, coarse: Atmosphere, truth: State, around: Surroundings, runs: np.ndarray
) -> tuple[State, Surroundings]:
    """The coarse model's first states, member by member within each run: the coarsened truth, and perturbed ones.

    A perturbation has the balance and the spectrum of the flow itself, at the size of an analysis error. As at
    weather centres, perturbations are centred: they sum to zero over the members of a run.
    """
    members = settings.members
    exact = atmosphere.coarsen(truth, settings.factor)
    state = State(**{name: np.repeat(getattr(exact, name), members, axis=0) for name in atmosphere.FIELDS})
    wind = np.repeat(around.wind, members, axis=0)
    if members > 1:
        rngs = [np.random.default_rng([settings.seed, 2, run, member]) for run in runs for member in range(1, members)]
        errors = flow(rngs, coarse.terrain.shape[0], coarse.spacing)
        aloft = np.mean(WIND_ALOFT) * np.stack([rng.standard_normal(2) for rng in rngs])
        *fields, aloft = (ANALYSIS_ERROR * _centred(error, members - 1) for error in (*errors, aloft))
        u, v, top, theta, moisture = (field.astype(np.float32) for field in fields)
        perturbed = np.arange(len(runs) * members) % members > 0
        humidity = state.humidity[perturbed] * np.maximum(1 + MOISTURE[1] / MOISTURE[0] * moisture, 0)
        theta = state.theta[perturbed] + theta
        wind[perturbed] += aloft
        state.u[perturbed] += u
        state.v[perturbed] += v
        state.depth[perturbed] += top
        state.heat[perturbed] = theta * state.depth[perturbed]
        state.water[perturbed] = humidity * state.depth[perturbed]
    return state, Surroundings(wind, np.repeat(around.time, members))


def _centred(errors: np.ndarray, members: int) -> np.ndarray:
    """(run x member, ...) errors centred over each run's members at the same variance; a single one is unchanged."""
    if members == 1:
        return errors
    of_runs = errors.reshape(-1, members, *errors.shape[1:])
    departures = of_runs - of_runs.mean(1, keepdims=True)
    return (departures * np.sqrt(members / (members - 1))).reshape(errors.shape)


def init_times(settings: Settings) -> np.ndarray:
    """(run) int64, seconds since 1970-01-01 UTC."""
    return FIRST + BETWEEN * np.arange(settings.runs, dtype=np.int64)


def layout(settings: Settings) -> Layout:
    """All of the store except its fields."""
    fine, coarse = models(settings)
    leads = 3600 * settings.interval * np.arange(1, settings.leads + 1, dtype=np.int64)
    init_time, lead_time = np.repeat(init_times(settings), len(leads)), np.tile(leads, settings.runs)
    counts = (settings.train, settings.validation, settings.test)
    of_run = np.random.default_rng([settings.seed, 3]).permutation(np.repeat(np.arange(3, dtype=np.int8), counts))
    position = (np.arange(settings.size) + 0.5) / settings.factor - 0.5
    return Layout(
        high_variables=settings.high_variables,
        low_variables=settings.low_variables,
        high_grid=grid(settings.size, settings.spacing),
        low_grid=grid(settings.size // settings.factor, settings.spacing * settings.factor),
        time=init_time + lead_time,
        init_time=init_time,
        lead_time=lead_time,
        low_init_time=init_time,
        low_lead_time=lead_time,
        high_index=np.arange(len(init_time)),
        split=np.repeat(of_run, len(leads)),
        low_index=tuple(np.meshgrid(position, position, indexing="ij")),  # type: ignore[arg-type]
        factor=settings.factor,
        pairing="same-run",
        splits={"by": "independent initial states, drawn at random", **dict(zip(SPLITS, counts, strict=True))},
        provenance={
            "source": "the built-in physical model (dsr data simulate)",
            "version": atmosphere.VERSION,
            "settings": asdict(settings),
        },
        members=settings.members,
        static={} if settings.flat else {TERRAIN.name: fine.terrain},
        static_variables=[] if settings.flat else [TERRAIN],
        low_static={} if settings.flat else {TERRAIN.name: coarse.terrain},
    )


def geographic(size: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) longitude and latitude in degrees of a square grid centred on CENTRE, by transverse Mercator."""
    from pyproj import Transformer

    x, y = np.meshgrid(*2 * [(np.arange(size) - 0.5 * (size - 1)) * spacing])
    return Transformer.from_crs(projection(), "EPSG:4326", always_xy=True).transform(x, y)


def projection() -> Any:
    """The domain's map projection: transverse Mercator, true at CENTRE."""
    from pyproj import CRS

    return CRS.from_proj4(f"+proj=tmerc +lat_0={CENTRE[0]} +lon_0={CENTRE[1]} +k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m")


def grid(size: int, spacing: float) -> Grid:
    """A square grid centred on the projection's origin."""
    along = (np.arange(size) - 0.5 * (size - 1)) * spacing
    return Grid(along, along, projection().to_cf())


def error_growth(store: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """The error growth of the coarse forecasts of a simulated store against the fine run averaged to their grid.

    {variable: {"lead" (hours), "control", "mean", "spread", "saturation"}}, each (lead) float64 in its units: RMSE of
    the unperturbed member and of the ensemble mean, the members' standard deviation, and the RMSE between the truths
    of unrelated runs that agree in their area mean (the season's and the hour's), at which no skill is left. All runs
    of all splits are used.
    """
    opened = Store(store)
    leads = np.unique(opened.low_lead_time)
    factor = opened.attributes["factor"]
    names = [v.name for v in opened.high_variables]
    rows = [[v.name for v in opened.low_variables].index(name) for name in names]
    curves: dict[str, list[np.ndarray]] = {"control": [], "mean": [], "spread": [], "saturation": []}
    for lead in leads:
        at_lead = np.flatnonzero(opened.low_lead_time == lead)
        low = opened.low[at_lead][:, :, rows].astype(np.float64)
        high = opened.high[opened.high_index[at_lead]]
        n, variables, height, width = high.shape
        blocks = high.reshape(n, variables, height // factor, factor, width // factor, factor)
        truth = blocks.mean((3, 5), dtype=np.float64)
        for name, squares in (
            ("control", (low[:, 0] - truth) ** 2),
            ("mean", (low.mean(1) - truth) ** 2),
            ("spread", low.var(1, ddof=1) if low.shape[1] > 1 else 0 * truth),
            ("saturation", 2 * (truth - truth.mean((2, 3), keepdims=True)).var(0, ddof=1)[None]),
        ):
            curves[name].append(np.sqrt(squares.mean((0, 2, 3))))
    table = {name: np.stack(values, 1) for name, values in curves.items()}
    return {name: {"lead": leads / 3600, **{k: table[k][i] for k in table}} for i, name in enumerate(names)}


def plot_error_growth(growth: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Plot a panel for each variable of `error_growth` to a file (png, svg or pdf, by suffix)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(growth), 3), layout="constrained")
    panels = figure.subplots(1, len(growth), squeeze=False)[0]
    for axes, (name, curve) in zip(panels, growth.items(), strict=True):
        for label, style in (("saturation", "k:"), ("control", "C0-"), ("mean", "C1-"), ("spread", "C1--")):
            axes.plot(curve["lead"], curve[label], style, label=label)
        axes.set(title=f"{name} ({VARIABLES[name].units})", xlabel="lead time (h)", ylim=(0, None))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)
