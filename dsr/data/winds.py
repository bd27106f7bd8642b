"""Rotation of winds along the axes of a grid to east and north."""

from dataclasses import dataclass, replace

import numpy as np

from dsr.data import projection
from dsr.data.grid import Grid
from dsr.data.store import Variable
from dsr.errors import UserError

ROTATED = {"x_wind": "eastward_wind", "y_wind": "northward_wind"}


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotates pairs of variables of a stack ([member,] variable, y, x) by the angle of the grid's x axis."""

    pairs: list[tuple[int, int]]  # of variables, along x and along y
    sine: np.ndarray  # (y, x) float32
    cosine: np.ndarray

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        for i, j in self.pairs:
            u, v = fields[..., i, :, :].copy(), fields[..., j, :, :].copy()
            fields[..., i, :, :] = u * self.cosine - v * self.sine
            fields[..., j, :, :] = u * self.sine + v * self.cosine
        return fields

    def described(self, variables: list[Variable]) -> list[Variable]:
        """The variables with the standard names after rotation."""
        result = list(variables)
        for index in (k for pair in self.pairs for k in pair):
            result[index] = replace(result[index], standard_name=ROTATED.get(result[index].standard_name, ""))
        return result


def rotation(variables: list[Variable], grid: Grid, archive: str) -> Rotation:
    """The rotation of all x_wind and y_wind of an archive; of none if its winds are already eastward and northward.

    Raises UserError if a component has no partner, or there is no wind.
    """
    along_x = [i for i, v in enumerate(variables) if v.standard_name == "x_wind"]
    along_y = [i for i, v in enumerate(variables) if v.standard_name == "y_wind"]
    already = {v.standard_name for v in variables} & set(ROTATED.values())
    if len(along_x) != len(along_y) or not (along_x or already):
        raise UserError(
            f'{archive}: "rotate_winds" needs both components, with standard_name x_wind and y_wind; it has '
            f"{len(along_x)} and {len(along_y)}"
        )
    angle = axis_angle(grid)
    pairs = [(i, _partner(i, along_y, variables, archive)) for i in along_x]
    return Rotation(pairs, np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32))


def _partner(i: int, along_y: list[int], variables: list[Variable], archive: str) -> int:
    """The y component of the wind whose x component is variable `i`; if there are several, by name."""
    name = variables[i].name
    partners = {name.replace(x, y, 1) for x, y in (("u", "v"), ("U", "V"), ("x", "y"), ("X", "Y"))} - {name}
    named = [j for j in along_y if variables[j].name in partners]
    if len(along_y) > 1 and len(named) != 1:
        raise UserError(
            f"{archive}: {name} has no unique partner; give components matching names, such as u_80 and v_80"
        )
    return named[0] if named else along_y[0]


def axis_angle(grid: Grid) -> np.ndarray:
    """(y, x) float64 radians: the direction of increasing x at each point, counted from east to north."""
    if not grid.projected:
        return np.zeros(grid.shape)
    assert grid.mapping is not None
    rows, columns = np.meshgrid(grid.y, grid.x, indexing="ij")
    step = 1e-3 * abs(grid.spacing[1])
    (south, west), (north, east) = (projection.degrees(grid.mapping, rows, columns + d) for d in (-step, step))
    across = ((east - west + 180) % 360 - 180) * np.cos(np.deg2rad((south + north) / 2))
    return np.arctan2(north - south, across)
