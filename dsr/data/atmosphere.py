"""The built-in physical model: a small two-dimensional atmosphere over terrain, at any resolution.

One moist layer of air, 2.7 km deep, flows over terrain under a free atmosphere that moves with a uniform geostrophic
wind (U, V): a rotating, reduced-gravity (one-and-a-half-layer) shallow-water system on a doubly periodic f-plane, with
a shallow surface layer below it that the sun heats, the night cools and the slopes drain. All in SI units:

    du/dt =  (f + zeta) v - f V - d/dx (g' eta + (u^2 + v^2) / 2) - C_d |u| u / D + diffusion         m s-1
    dv/dt = -(f + zeta) u + f U - d/dy (g' eta + (u^2 + v^2) / 2) - C_d |u| v / D + diffusion         m s-1
    dD/dt = -div(D u)                                       D = eta - h: depth of the layer           m
    d(D theta)/dt = -div(D u theta) + D (L/c_p C + (theta_r - theta) / tau_r) + d a / tau_m           m K
    d(D q)/dt = -div(D u q) - D C + E                                                                 m kg kg-1
    da/dt = (sunshine - long wave) / (rho c_p d) - a / tau_m - a / tau_g - div(drainage)              K

theta and q are the layer's potential temperature and specific humidity, h the terrain, a the temperature of the surface
layer (depth d) relative to the layer above it.

*Rain.* The middle of the layer, at z_m = h + D/2, has temperature theta - g/c_p z_m, and so rises and cools wherever
air flows uphill (u.grad h > 0) or converges. Vapour above the threshold `onset` times saturation condenses, warms the
layer and falls out within the step; sinking air has nothing to evaporate. So only ascent, max(0, u.grad h), rains,
and only where the air is moist enough; the lee is warm and dry.

*Temperature at 2 m* is theta + a - g/c_p h. In wind or sunshine a is small or the same everywhere and the lapse rate is
dry-adiabatic. On calm clear nights the surface layer decouples (mixing falls with the bulk Richardson number, Louis
1979, doi:10.1007/BF00117978), cools, and its cold air runs down the slopes into basins: the lapse rate
weakens. By day free convection adds to the wind that mixes (Beljaars 1995, doi:10.1002/qj.49712152203).

Numerics: Arakawa C-grid with the energy-conserving form of Sadourny (1975, J. Atmos. Sci. 32, 680-689), third-order
upwind fluxes, and the generalised forward-backward scheme AB3-AM4 (Shchepetkin and McWilliams 2005,
doi:10.1016/j.ocemod.2004.08.002). Depth, heat and water are transported in flux form, hence conserved. Arrays are
(run, y, x) float32; u lies on the west face of its cell, v on the south face, everything else in the middle.
"""

from dataclasses import dataclass, field, replace

import numpy as np

VERSION = 2  # of the equations and constants below; part of every store's provenance and of the cache key

GRAVITY = 9.81  # m s-2
HEAT_CAPACITY = 1005.0  # J kg-1 K-1, air at constant pressure
LATENT_HEAT = 2.5e6  # J kg-1
DENSITY = 1.1  # kg m-3, of the layer
LAPSE = GRAVITY / HEAT_CAPACITY  # K m-1, dry-adiabatic
CORIOLIS = 1.03e-4  # s-1, at 45 N
REDUCED_GRAVITY = 0.24  # m s-2: g times 2.4 % lighter air above (an inversion of 7 K)
DEPTH = 2700.0  # m, mean height of the layer's top: gravity waves run at 25 m s-1, the deformation radius is 247 km
DRAG = 2e-3  # drag coefficient of land
SMOOTHING = 1800.0  # s: biharmonic diffusion damps waves of two cells this fast (1/e)
REFERENCE = 290.0  # K; theta is stored as the difference from it
RELAXATION = 5 * 86400.0  # s: radiation relaxes the layer to the temperature of the season
PRESSURE = 88_000.0  # Pa, middle of the layer
ONSET = (
    0.9  # relative humidity of the whole cell's layer at which condensation sets in (part of a cell saturates first)
)
EVAPORATION = 1.2e-3  # transfer coefficient of vapour from land
SURFACE_LAYER = 150.0  # m, depth d of the surface layer
EXCHANGE = 6e-3  # transfer coefficient between the surface layer and the layer above when neutral
FEEDBACK = 10 * 3600.0  # s, tau_g: long-wave and ground heat flux answer a warm or cold surface (5 W m-2 K-1)
SENSIBLE = 0.3  # share of the sunshine at the top of the atmosphere that heats the air at the ground
SOLAR_CONSTANT = 1361.0  # W m-2
LONG_WAVE = 60.0  # W m-2, net loss under a clear sky
DRAINAGE_TIME = 300.0  # s: buoyancy along a slope over surface drag gives the drainage wind
TEN_METRES = 0.75  # wind at 10 m over the layer's wind when neutral


@dataclass
class State:
    """The prognostic fields of several runs, (run, y, x) float32, and what has accumulated since a `fresh` start."""

    u: np.ndarray  # m s-1, west faces
    v: np.ndarray  # m s-1, south faces
    depth: np.ndarray  # m
    heat: np.ndarray  # K m: depth times (potential temperature - REFERENCE)
    water: np.ndarray  # kg kg-1 m: depth times specific humidity
    surface: np.ndarray  # K: surface layer relative to the layer above
    rain: np.ndarray  # kg m-2, accumulated
    evaporated: np.ndarray  # kg m-2, accumulated
    past: list[tuple[np.ndarray, ...]] = field(
        default_factory=list, init=False
    )  # tendencies and depths of the last two steps

    @property
    def theta(self) -> np.ndarray:
        """K, minus REFERENCE."""
        return self.heat / self.depth

    @property
    def humidity(self) -> np.ndarray:
        """kg kg-1."""
        return self.water / self.depth


FIELDS = ("u", "v", "depth", "heat", "water", "surface", "rain", "evaporated")


@dataclass
class Surroundings:
    """External conditions of each run."""

    wind: np.ndarray  # (run, 2) float32, m s-1: geostrophic wind aloft, eastward and northward
    time: np.ndarray  # (run) int64, seconds since 1970-01-01 UTC of the state


def shift(a: np.ndarray, y: int, x: int) -> np.ndarray:
    """The periodic neighbour along one axis, `y` rows north or `x` columns east: result[j, i] = a[j + y, i + x]."""
    result = np.empty(a.shape, a.dtype)
    if y:
        y %= a.shape[-2]
        result[..., : a.shape[-2] - y, :], result[..., a.shape[-2] - y :, :] = a[..., y:, :], a[..., :y, :]
    elif x == 1:  # one long copy, then the column that came from the next row
        result.reshape(-1)[:-1] = a.reshape(-1)[1:]
        result[..., -1] = a[..., 0]
    else:
        result.reshape(-1)[1:] = a.reshape(-1)[:-1]
        result[..., 0] = a[..., -1]
    return result


def west(a: np.ndarray) -> np.ndarray:
    return shift(a, 0, -1)


def east(a: np.ndarray) -> np.ndarray:
    return shift(a, 0, 1)


def south(a: np.ndarray) -> np.ndarray:
    return shift(a, -1, 0)


def north(a: np.ndarray) -> np.ndarray:
    return shift(a, 1, 0)


def saturation(temperature: np.ndarray) -> np.ndarray:
    """Saturation specific humidity (kg kg-1) at `temperature` (K) and 880 hPa (Bolton 1980)."""
    return (0.622 * 611.2 / PRESSURE) * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))


def declination(time: np.ndarray) -> np.ndarray:
    """The sun's declination (radians) at `time`, seconds since 1970-01-01 UTC; good to half a degree."""
    days = np.asarray(time) / 86400.0 % 365.2422
    return np.deg2rad(-23.44) * np.cos(2 * np.pi * (days + 10) / 365.2422)


def seasonal(time: np.ndarray) -> np.ndarray:
    """Potential temperature (K, minus REFERENCE) to which radiation relaxes the layer, with a lag of a month."""
    return 8.0 * declination(np.asarray(time) - 30 * 86400) / np.deg2rad(23.44)


class Atmosphere:
    """The equations on one grid.

    `terrain` (y, x) float32 in m, `spacing` in m, `longitude` and `latitude` (y, x) in degrees; `step` in seconds is
    the step of the slow physics, split into `substeps` of the dynamics. The numerics are stable while
    (|u| + |v|) step / substeps < 0.75 spacing and gravity waves pass less than 0.6 cells in a substep.
    """

    def __init__(
        self,
        terrain: np.ndarray,
        spacing: float,
        longitude: np.ndarray,
        latitude: np.ndarray,
        step: float,
        substeps: int,
        dry: bool = False,
    ):
        self.terrain, self.spacing = terrain.astype(np.float32), spacing
        self.step, self.substeps, self.dry = step, substeps, dry
        self.longitude = np.deg2rad(longitude).astype(np.float32)
        self.sin_latitude = np.sin(np.deg2rad(latitude)).astype(np.float32)
        self.cos_latitude = np.cos(np.deg2rad(latitude)).astype(np.float32)
        self.slope_x = (self.terrain - west(self.terrain)) / np.float32(spacing)  # on west faces
        self.slope_y = (self.terrain - south(self.terrain)) / np.float32(spacing)

    def advance(self, state: State, around: Surroundings) -> None:
        """One step, in place: the dynamics in substeps, then the physics."""
        for _ in range(self.substeps):
            self.dynamics(state, around, self.step / self.substeps)
        self.physics(state, around)
        around.time = around.time + int(self.step)

    def dynamics(self, state: State, around: Surroundings, dt: float) -> None:
        """Advection, rotation and gravity waves over `dt` seconds, in place."""
        u, v, depth = state.u, state.v, state.depth
        per_cell = np.float32(1 / self.spacing)
        aloft = around.wind[:, :, None, None]
        depth_west, depth_south = depth + west(depth), depth + south(depth)  # twice the depth on the faces
        flux_x, flux_y = 0.5 * u * depth_west, 0.5 * v * depth_south
        vorticity = (v - west(v) - u + south(u)) * per_cell  # on south-west corners
        potential = (CORIOLIS + vorticity) / (0.25 * (depth_west + south(depth_west)))
        around_x = potential * (flux_y + west(flux_y))
        around_y = potential * (flux_x + south(flux_x))
        square_x, square_y = u * u, v * v
        kinetic = 0.25 * (square_x + east(square_x) + square_y + north(square_y))
        tendencies = (
            0.25 * (around_x + north(around_x)) - CORIOLIS * aloft[:, 1] - (kinetic - west(kinetic)) * per_cell,
            -0.25 * (around_y + east(around_y)) + CORIOLIS * aloft[:, 0] - (kinetic - south(kinetic)) * per_cell,
            (flux_x - east(flux_x) + flux_y - north(flux_y)) * per_cell,
            *(self._transport(flux_x, flux_y, scalar) for scalar in (state.theta, state.humidity)),
        )
        now = (*tendencies, depth)
        past = state.past or [now, now]
        fields = (u, v, depth, state.heat, state.water)
        weights = np.float32(dt * (1.5 + _BETA)), np.float32(dt * (0.5 + 2 * _BETA)), np.float32(dt * _BETA)
        u, v, depth, heat, water = (
            value + weights[0] * new - weights[1] * old + weights[2] * older
            for value, new, old, older in zip(fields, tendencies, past[0], past[1], strict=False)
        )
        top = self.terrain + _AM[0] * depth + _AM[1] * now[-1] + _AM[2] * past[0][-1] + _AM[3] * past[1][-1]
        u -= np.float32(dt * REDUCED_GRAVITY / self.spacing) * (top - west(top))
        v -= np.float32(dt * REDUCED_GRAVITY / self.spacing) * (top - south(top))
        state.u, state.v, state.depth, state.heat, state.water = u, v, depth, heat, water
        state.past = [now, past[0]]

    def _transport(self, flux_x: np.ndarray, flux_y: np.ndarray, scalar: np.ndarray) -> np.ndarray:
        """-div(flux scalar); on a face, the mean of both sides less a sixth of the curvature upwind (third order)."""

        def through(flux: np.ndarray, y: int, x: int) -> np.ndarray:
            behind = shift(scalar, -y, -x)
            step = scalar - behind
            curvature = shift(step, y, x) - step
            forward = np.maximum(flux, 0)
            upwind = forward * shift(curvature, -y, -x) + (flux - forward) * curvature
            return flux * (scalar + behind) - np.float32(1 / 3) * upwind

        across, along = through(flux_x, 0, 1), through(flux_y, 1, 0)
        return (across - east(across) + along - north(along)) * np.float32(0.5 / self.spacing)

    def physics(self, state: State, around: Surroundings) -> None:
        """Drag, diffusion, radiation, mixing, drainage, evaporation and rain over `step` seconds, in place."""
        dt = np.float32(self.step)
        speed = self.speed(state)
        drag = dt * DRAG * speed / state.depth
        state.u = self._smooth(state.u) / (1 + 0.5 * (drag + west(drag)))
        state.v = self._smooth(state.v) / (1 + 0.5 * (drag + south(drag)))

        theta = state.theta
        middle = theta + REFERENCE - LAPSE * (self.terrain + 0.5 * state.depth)  # K, mid-layer temperature
        if self.dry:
            clear = np.float32(1)
        else:
            humidity, saturated = state.humidity, saturation(middle)
            clear = 1 - np.clip((humidity / saturated - 0.7) / 0.3, 0, 1)  # share of clear sky

        # the surface layer: implicit in its own temperature
        heating = self.sunshine(around.time) * (SENSIBLE * (0.3 + 0.7 * clear)) - LONG_WAVE * (0.2 + 0.8 * clear)
        mixing = self.mixing(state.surface, speed)
        warming = heating / (DENSITY * HEAT_CAPACITY * SURFACE_LAYER) + self._drainage(state.surface)
        before = state.surface + dt * warming
        state.surface = before / (1 + dt * (mixing + 1 / FEEDBACK))
        warmed = dt * SURFACE_LAYER * mixing * state.surface
        season = seasonal(around.time).astype(np.float32)[:, None, None]
        state.heat = state.heat + warmed + dt / RELAXATION * (season - theta) * state.depth

        if not self.dry:
            ground = saturation(theta + REFERENCE - LAPSE * self.terrain)
            evaporation = dt * EVAPORATION * speed * np.maximum(ground - humidity, 0) * (0.5 + 0.5 * clear)
            latent = LATENT_HEAT / HEAT_CAPACITY
            steepness = 1 + ONSET * latent * saturated * 4302.6 / (middle - 29.65) ** 2  # Clausius-Clapeyron: dq_s/dT
            condensed = np.maximum(humidity - ONSET * saturated, 0) / steepness * state.depth
            state.water = state.water + evaporation - condensed
            state.heat = state.heat + latent * condensed
            state.rain += DENSITY * condensed
            state.evaporated += DENSITY * evaporation

    def speed(self, state: State) -> np.ndarray:
        """Wind speed of the layer in the middle of each cell, m s-1."""
        return 0.5 * np.sqrt((state.u + east(state.u)) ** 2 + (state.v + north(state.v)) ** 2)

    def sunshine(self, time: np.ndarray) -> np.ndarray:
        """(run, y, x) W m-2 on level ground at the top of the atmosphere."""
        tilt = declination(time).astype(np.float32)[:, None, None]
        hour = (2 * np.pi * (time % 86400 / 86400.0 - 0.5)).astype(np.float32)[:, None, None]
        height = self.sin_latitude * np.sin(tilt) + self.cos_latitude * np.cos(tilt) * np.cos(hour + self.longitude)
        return SOLAR_CONSTANT * np.maximum(height, 0)

    def stability(self, surface: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """Factor (0 to 1) by which a cold surface layer weakens the exchange: 1 / (1 + 5 Ri)^2."""
        richardson = (GRAVITY * SURFACE_LAYER / REFERENCE) * np.maximum(-surface, 0) / (speed * speed + 0.25)
        return 1 / (1 + 5 * richardson) ** 2

    def mixing(self, surface: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """1 / tau_m in s-1: how fast the surface layer mixes with the layer above."""
        convection = (GRAVITY * SURFACE_LAYER / REFERENCE) * np.maximum(surface, 0)  # m2 s-2
        return (EXCHANGE / SURFACE_LAYER) * np.sqrt(speed * speed + convection) * self.stability(surface, speed)

    def _drainage(self, surface: np.ndarray) -> np.ndarray:
        """K s-1: drainage of cold air from the surface layer.

        The air keeps its temperature; air from the layer above replaces it on ridges, and air that collects in a basin
        displaces the air there through the top, so that a basin becomes no colder than the slopes that feed it.
        """
        cold = np.maximum(-surface, 0)
        speed = cold * np.float32(DRAINAGE_TIME * GRAVITY / REFERENCE)  # m s-1 for each unit of slope
        up_x, down_x = np.maximum(self.slope_x, 0), np.minimum(self.slope_x, 0)
        up_y, down_y = np.maximum(self.slope_y, 0), np.minimum(self.slope_y, 0)

        def gathering(amount: np.ndarray) -> np.ndarray:
            through_x = up_x * amount + down_x * west(amount)  # through the west face, westward
            through_y = up_y * amount + down_y * south(amount)
            return (east(through_x) - through_x + north(through_y) - through_y) * np.float32(1 / self.spacing)

        return np.maximum(gathering(speed), 0) * cold - gathering(speed * cold)

    def _smooth(self, a: np.ndarray) -> np.ndarray:
        """`a` after one step of biharmonic diffusion."""
        once = 4 * a - west(a) - east(a) - south(a) - north(a)
        twice = 4 * once - west(once) - east(once) - south(once) - north(once)
        return a - np.float32(self.step / SMOOTHING / 64) * twice

    def diagnose(self, state: State) -> dict[str, np.ndarray]:
        """The forecast variables: t2m (K), u10 and v10 (m s-1), tp (kg m-2 since `rain` was cleared), msl (Pa), q."""
        speed = self.speed(state)
        near = TEN_METRES * (0.4 + 0.6 * self.stability(state.surface, speed))  # a stable surface layer decouples
        cold = np.maximum(-state.surface, 0) * np.float32(DRAINAGE_TIME * GRAVITY / REFERENCE)
        return {
            "t2m": state.theta + REFERENCE + state.surface - LAPSE * self.terrain,
            "u10": near * 0.5 * (state.u + east(state.u)) - cold * 0.5 * (self.slope_x + east(self.slope_x)),
            "v10": near * 0.5 * (state.v + north(state.v)) - cold * 0.5 * (self.slope_y + north(self.slope_y)),
            "tp": state.rain.copy(),
            "msl": 101_325 + DENSITY * REDUCED_GRAVITY * (state.depth + self.terrain - DEPTH),
            "q": state.humidity,
        }


_BETA = 0.281105  # of the generalised AB3, and the weights of AM4 with gamma = 0.088, epsilon = 0.013
_AM = tuple(np.float32(weight) for weight in (0.5 + 0.088 + 2 * 0.013, 0.5 - 2 * 0.088 - 3 * 0.013, 0.088, 0.013))


def coarsen(state: State, factor: int) -> State:
    """The state on a grid coarser by `factor`: mass, heat, water, and mass fluxes through the faces are conserved."""

    def mean(a: np.ndarray) -> np.ndarray:
        runs, rows, columns = a.shape
        return a.reshape(runs, rows // factor, factor, columns // factor, factor).mean((2, 4), dtype=np.float64)

    depth = mean(state.depth)
    flux_x = 0.5 * state.u * (state.depth + west(state.depth))
    flux_y = 0.5 * state.v * (state.depth + south(state.depth))
    runs, rows, columns = flux_x.shape
    flux_x = flux_x[:, :, ::factor].reshape(runs, rows // factor, factor, -1).mean(2)
    flux_y = flux_y[:, ::factor].reshape(runs, rows // factor, columns // factor, factor).mean(3)
    fields = {name: mean(getattr(state, name)) for name in ("heat", "water", "surface", "rain", "evaporated")}
    fields |= {"u": 2 * flux_x / (depth + west(depth)), "v": 2 * flux_y / (depth + south(depth)), "depth": depth}
    return State(**{name: values.astype(np.float32) for name, values in fields.items()})


def balanced(streamfunction: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geostrophic (u, v, eta) on the C-grid from a streamfunction (run, y, x) in m2 s-1 on south-west corners."""
    u = -(north(streamfunction) - streamfunction) / spacing
    v = (east(streamfunction) - streamfunction) / spacing
    pair = streamfunction + east(streamfunction)
    return u, v, (CORIOLIS / REDUCED_GRAVITY) * 0.25 * (pair + north(pair))


def fresh(state: State) -> State:
    """The state with rain, evaporation and the history of time steps reset."""
    return replace(state, rain=np.zeros_like(state.rain), evaporated=np.zeros_like(state.evaporated))
