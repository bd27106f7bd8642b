"""The built-in atmosphere: physical checks of its equations, and the store that is made of it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsr.data import atmosphere, simulate
from dsr.data.atmosphere import Atmosphere, State, Surroundings
from dsr.data.simulate import Settings
from dsr.data.store import Store
from dsr.errors import UserError

pytestmark = pytest.mark.slow

TINY = Settings(size=24, train=4, validation=1, test=1, leads=2, members=2, spinup=2)


def model(size: int = 48, spacing: float = 16e3, step: float = 300.0, terrain: np.ndarray | None = None) -> Atmosphere:
    """A dry model whose dynamics take steps of `step`."""
    terrain = np.zeros((size, size), np.float32) if terrain is None else terrain
    return Atmosphere(terrain, spacing, *simulate.geographic(size, spacing), step, 1, dry=True)


def resting(top: np.ndarray, u: np.ndarray | float = 0.0, v: np.ndarray | float = 0.0) -> State:
    """A dry state over flat ground from the height of its top above the mean, and its wind."""
    fields = {name: np.zeros_like(top) for name in atmosphere.FIELDS}
    fields |= {"depth": atmosphere.DEPTH + top, "u": u + 0 * top, "v": v + 0 * top}
    return State(**{name: values.astype(np.float32) for name, values in fields.items()})


def no_wind(runs: int = 1) -> Surroundings:
    return Surroundings(np.zeros((runs, 2), np.float32), np.zeros(runs, np.int64))


def test_scales_are_those_of_weather() -> None:
    """Rossby's deformation radius spans four coarse cells or more, and the domain three radii or more."""
    settings = Settings()
    radius = np.sqrt(atmosphere.REDUCED_GRAVITY * atmosphere.DEPTH) / atmosphere.CORIOLIS
    assert radius >= 4 * settings.factor * settings.spacing
    assert settings.size * settings.spacing >= 3 * radius


def test_gravity_waves_have_the_speed_of_the_dispersion_relation() -> None:
    """A small standing wave oscillates at omega^2 = f^2 + g' H k^2, with k as the C-grid sees it."""
    size, spacing, step = 48, 16e3, 60.0
    flat = model(size, spacing, step)
    for waves in (2, 4, 8):
        phase = 2 * np.pi * waves * np.arange(size) / size
        state = resting(np.broadcast_to(np.cos(phase), (1, size, size)))
        heights = []
        for _ in range(240):
            flat.dynamics(state, no_wind(), step)
            heights.append(2 * float(((state.depth - atmosphere.DEPTH) * np.cos(phase)).mean(dtype=np.float64)))
        k = 2 / spacing * np.sin(np.pi * waves / size)
        inertia = atmosphere.CORIOLIS**2 * np.cos(np.pi * waves / size) ** 2  # f averaged over the four corners
        gravity = atmosphere.REDUCED_GRAVITY * atmosphere.DEPTH * k**2
        omega = np.sqrt(inertia + gravity)
        times = step * np.arange(1, 241)
        expected = inertia / omega**2 + gravity / omega**2 * np.cos(omega * times)  # the rest of it is geostrophic
        np.testing.assert_allclose(heights, expected, atol=0.06)


def test_geostrophic_balance_is_held() -> None:
    """A weak balanced jet over flat ground stays as it is for a day, while the same heights without wind do not."""
    size, spacing = 48, 16e3
    y = 2 * np.pi * np.arange(size) / size
    stream = np.broadcast_to(1e5 * np.cos(y)[None, :, None], (1, size, size))
    u, v, top = atmosphere.balanced(stream, spacing)
    jet, still, flat = resting(top, u, v), resting(top), model(size, spacing)
    for _ in range(288):
        flat.dynamics(jet, no_wind(), 300.0)
        flat.dynamics(still, no_wind(), 300.0)
    assert np.abs(jet.u - u).max() < 0.01 * np.abs(u).max()
    assert np.abs(jet.depth - atmosphere.DEPTH - top).max() < 0.01 * np.abs(top).max()
    assert np.abs(still.depth - atmosphere.DEPTH - top).max() > 0.3 * np.abs(top).max()


def test_mass_heat_and_water_are_conserved() -> None:
    """Over terrain, mass to rounding; water but for rain and evaporation; and the transport keeps heat."""
    settings = replace(TINY, size=48)
    fine, _ = simulate.models(settings)
    state, around = simulate.initial(settings, fine, np.arange(2))
    mass, water = (a.mean((1, 2), dtype=np.float64) for a in (state.depth, state.water))
    for _ in range(24):
        fine.advance(state, around)
    assert state.rain.max() > 0.1
    np.testing.assert_allclose(state.depth.mean((1, 2), dtype=np.float64), mass, rtol=1e-6)
    kept = water + (state.evaporated - state.rain).mean((1, 2), dtype=np.float64) / atmosphere.DENSITY
    np.testing.assert_allclose(state.water.mean((1, 2), dtype=np.float64), kept, rtol=1e-5)
    heat = state.heat.mean((1, 2), dtype=np.float64)
    for _ in range(24):
        fine.dynamics(state, around, 100.0)
    np.testing.assert_allclose(state.heat.mean((1, 2), dtype=np.float64), heat, rtol=1e-5)


def test_a_uniform_tracer_stays_uniform() -> None:
    settings = replace(TINY, size=48)
    fine, _ = simulate.models(settings)
    state, around = simulate.initial(settings, fine, np.arange(1))
    state.heat = 3 * state.depth
    for _ in range(48):
        fine.dynamics(state, around, 100.0)
    np.testing.assert_allclose(state.theta, 3, rtol=1e-4)


def test_time_steps_converge() -> None:
    """Halving the step of the dynamics divides the error by about four: second order."""
    settings = Settings(size=32, spacing=24e3)
    fine, _ = simulate.models(settings)
    ends = {}
    for steps in (96, 192, 384, 1152):
        state, around = simulate.initial(settings, fine, np.arange(2))
        for name in ("u", "v", "depth", "heat", "water"):
            setattr(state, name, getattr(state, name).astype(np.float64))
        for _ in range(steps):
            fine.dynamics(state, around, 6 * 3600 / steps)
        ends[steps] = state.depth
    errors = [np.sqrt(((ends[steps] - ends[1152]) ** 2).mean()) for steps in (96, 192, 384)]
    assert errors[0] < 5.0  # m, after 6 h in steps of 225 s
    assert errors[0] / errors[1] > 2.5
    assert errors[1] / errors[2] > 2.5


def test_air_rains_where_it_rises_and_is_warm_and_dry_in_the_lee() -> None:
    size, spacing = 48, 16e3
    x = np.arange(size)
    ridge = np.broadcast_to(600 * np.exp(-(((x - 24) / 3.0) ** 2)), (size, size)).astype(np.float32)
    settings = Settings(size=size, spacing=spacing, flat=True)
    hilly = Atmosphere(ridge, spacing, *simulate.geographic(size, spacing), 300.0, 1)
    state, around = simulate.initial(settings, hilly, np.arange(1))
    state.u[:], state.v[:], around.wind[:] = 8.0, 0.0, (8.0, 0.0)
    state.depth[:] = atmosphere.DEPTH - ridge
    state.heat[:] = 0
    level = atmosphere.saturation(np.float32(atmosphere.REFERENCE - atmosphere.LAPSE * 0.5 * atmosphere.DEPTH))
    state.water[:] = 0.85 * level * state.depth
    for _ in range(12 * 8):
        hilly.advance(state, around)
    rain, humidity, theta = (a.mean((0, 1)) for a in (state.rain, state.humidity, state.theta))
    assert 18 <= rain.argmax() <= 25
    assert rain[20:25].mean() > 10 * rain[28:40].mean() + 0.1
    assert humidity[28:32].mean() < humidity[12:16].mean()
    assert theta[28:32].mean() > theta[12:16].mean()


def test_calm_clear_nights_fill_valleys_with_cold_air_and_wind_empties_them() -> None:
    size, spacing = 48, 8e3
    x = np.arange(size)
    valley = np.broadcast_to(300 + 300 * np.cos(2 * np.pi * x / 16), (size, size)).astype(np.float32)
    fine = Atmosphere(valley, spacing, *simulate.geographic(size, spacing), 300.0, 1, dry=True)
    lapse = {}
    for wind in (0.5, 10.0):
        state = resting(np.zeros((1, size, size)))
        state.depth -= valley
        state.v[:] = wind  # along the valley
        around = Surroundings(np.array([[0, wind]], np.float32), np.array([simulate.FIRST + 18 * 3600]))
        for _ in range(12 * 9):
            fine.physics(state, around)
        temperature = fine.diagnose(state)["t2m"].mean((0, 1))
        lapse[wind] = np.polyfit(valley[0], temperature, 1)[0]
    assert lapse[10.0] == pytest.approx(-atmosphere.LAPSE, rel=0.15)
    assert lapse[0.5] > -0.6 * atmosphere.LAPSE


def test_coarsening_keeps_mass_water_and_fluxes() -> None:
    settings = Settings(size=48)
    fine, coarse = simulate.models(settings)
    state, _ = simulate.initial(settings, fine, np.arange(2))
    low = atmosphere.coarsen(state, settings.factor)
    np.testing.assert_allclose(low.depth.mean(dtype=np.float64), state.depth.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(low.water.mean(dtype=np.float64), state.water.mean(dtype=np.float64), rtol=1e-6)

    def divergence(s: State, spacing: float) -> np.ndarray:
        flux_x = 0.5 * s.u * (s.depth + atmosphere.west(s.depth))
        flux_y = 0.5 * s.v * (s.depth + atmosphere.south(s.depth))
        return (atmosphere.east(flux_x) - flux_x + atmosphere.north(flux_y) - flux_y) / spacing

    blocks = divergence(state, fine.spacing).reshape(2, 12, 4, 12, 4).mean((2, 4))
    np.testing.assert_allclose(divergence(low, coarse.spacing), blocks, atol=1e-5)


def test_a_run_is_the_same_in_any_company() -> None:
    alone = [high for high, _ in simulate.forecasts(TINY, np.array([3]))]
    among = [high[1] for high, _ in simulate.forecasts(TINY, np.array([0, 3]))]
    np.testing.assert_array_equal(np.concatenate(alone), np.stack(among))


def test_the_store_is_whole_and_the_same_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        simulate.simulate(tmp_path / name, TINY)
    simulate.simulate(tmp_path / "other", replace(TINY, seed=2))
    one, two, other = (Store(tmp_path / name) for name in ("one", "two", "other"))
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert [v.name for v in one.high_variables] == ["t2m", "u10", "v10", "tp", "msl"]
    assert one.members == 2 and one.shape == (24, 24) and one.low_shape == (6, 6)
    assert [len(one.samples(split)) for split in ("train", "validation", "test")] == [8, 2, 2]
    inits = [set(one.low_init_time[one.samples(split)]) for split in ("train", "validation", "test")]
    assert not (inits[0] & inits[1] or inits[0] & inits[2] or inits[1] & inits[2])
    low, high = (array[:] for array in (one.low, one.high))
    assert np.isfinite(low).all() and np.isfinite(high).all()
    assert (low[:, 0] != low[:, 1]).any((1, 2, 3)).all()  # members differ
    row = np.arange(24)
    np.testing.assert_allclose(one.low_index[0][:, 0], (row - 1.5) / 4)
    grids = one.grid("high"), one.grid("low")
    np.testing.assert_allclose(grids[1].x, grids[0].x.reshape(6, 4).mean(1))
    assert abs(grids[0].latitude.mean() - 45) < 0.1
    with pytest.raises(UserError, match="exists already"):
        simulate.simulate(tmp_path / "one", TINY)


def test_forecasts_start_right_and_lose_skill_slowly(tmp_path: Path) -> None:
    """The coarse model's error grows from its start but stays below that of unrelated weather; members spread."""
    settings = Settings(size=48, train=8, validation=1, test=1, leads=3, interval=6, spinup=6)
    simulate.simulate(tmp_path / "store", settings)
    growth = simulate.error_growth(tmp_path / "store")
    for name in ("t2m", "u10", "v10", "msl"):
        assert growth[name]["control"][0] < growth[name]["control"][-1] * 1.2
        assert (growth[name]["mean"] < 0.9 * growth[name]["saturation"]).all(), name
        assert (growth[name]["spread"] > 0).all()
    simulate.plot_error_growth(growth, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_flat_and_dry_leaves_out_terrain_and_water(tmp_path: Path) -> None:
    simulate.simulate(tmp_path / "control", replace(TINY, flat=True, dry=True))
    store = Store(tmp_path / "control")
    assert [v.name for v in store.low_variables] == ["t2m", "u10", "v10", "msl"]
    assert store.static_variables == []


def test_the_built_in_store_is_made_once_by_many_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from dsr.data import simulate; make = simulate.simulate\n"
        "simulate.simulate = lambda *given: (print('simulating', file=sys.stderr), make(*given))\n"
        "print(simulate.builtin(simulate.Settings(size=24, train=2, validation=1, test=1, leads=1, spinup=1)))"
    )
    environment = {**os.environ, "DSR_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum(b"simulating" in error for _, error in outputs) == 1
    assert len(list(tmp_path.glob("builtin-*.zarr"))) == 1


def test_the_default_has_enough_samples() -> None:
    settings = Settings()
    assert settings.train >= 80
    assert settings.train * settings.leads >= 1280
