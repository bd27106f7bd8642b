"""One variable of an archive: its fields in one unit, over known intervals, of all members, from however many files."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import replace

import numpy as np

from dsr.data import names
from dsr.data.accumulation import Made, disjoint
from dsr.data.accumulation.rules import PACKED, check_hours, with_starts
from dsr.data.choice import Choice
from dsr.data.decoding.statistic import METHODS
from dsr.data.limits import EVERYWHERE, limit, within
from dsr.data.series import Frame, Series, Span
from dsr.data.store import Variable, with_bounds
from dsr.data.units import conversion, tidy
from dsr.errors import UserError

SENTINELS = (-999.0, -9999.0, -99999.0)  # written by many tools without a _FillValue
HUGE = 1e19  # beyond this no geophysical value lies: 9.97e36, 1e20 and their like are missing
FALL = 0.05  # of a field's largest total: files that say what they total were packed before, but never fall by more
HELD = 3  # raw fields kept, since a total serves two amounts


class Quantity:
    """A variable that several series hold together.

    Values outside of `window`, which the archive sets too, may be impossible: they are not used.
    `made` says how the value of each frame is made, `dropped` and `notes` what was left out or is doubtful, and
    `members`, which the archive sets, are those that every field must have. Raises UserError where units do not fit
    each other, or a sum's interval cannot be known.
    """

    def __init__(self, name: str, series: list[Series], choice: Choice, static: bool = False):
        self.name, self.choice = name, choice
        self.dropped: dict[str, list[Frame]] = defaultdict(list)
        self.members: list[int | str] | None = None
        self.window = EVERYWHERE
        self.series = [_static(one) for one in series] if static else series
        self.notes = [f"{name} {note}" for one in series for note in one.notes]
        self.table = self._by_span()
        self._held: OrderedDict[Span, np.ndarray] = OrderedDict()
        told = sorted({one.statistic for one in self.series})
        if len(told) > 1:
            raise UserError(f"{series[0].file}: {name} is a {told[0] or 'value'} here and a {told[1]} in other files")
        self.statistic = told[0] or self._said()
        self.variable = self._described()
        self._lines = self._lines_into(self.variable.units)
        self.made = self._made()
        if any(power for _, _, power in self._lines.values()):
            self._retell(series[0].file)
        self._note_intervals()

    # What it is

    def _said(self) -> str:
        """The statistic that a recipe's keys imply where no file says one: sums are "accumulated", rates are means."""
        if self.choice.accumulated is not None:
            return "sum"
        return "mean" if self.choice.hours else ""

    def _described(self) -> Variable:
        first, choice = self.series[0], self.choice
        units = {self._units(one) for one in self.series}
        target = tidy(choice.units) or self._units(first)
        if len(units) > 1:
            self.notes.append(f"{self.name} is in {' and in '.join(sorted(units))} in different files: all in {target}")
        told = next((one.attributes["standard_name"] for one in self.series if one.attributes.get("standard_name")), "")
        standard = choice.standard_name or names.standard_name(told, first.short_name, self._units(first))
        standard = (
            standard if choice.standard_name or target == self._units(first) else names.in_units(standard, target)
        )
        if standard == "geopotential" and target == "m2 s-2" and self._is_surface(first):
            standard, target = "surface_altitude", "m"
        long_name = choice.long_name or first.attributes.get("long_name", "")
        methods = METHODS.get(self.statistic, "")
        return with_bounds(Variable(self.name, target or "1", standard, long_name, methods))

    def _units(self, series: Series) -> str:
        """The units that the values of a series truly have."""
        choice = self.choice
        return tidy(choice.source_units) or tidy(series.attributes.get("units", "")) or tidy(choice.units)

    def _is_surface(self, series: Series) -> bool:
        return series.level is None or series.level[0] == "surface"

    def _lines_into(self, target: str) -> dict[str, tuple[float, float, int]]:
        """{a series' units: (scale, offset, power of the interval's seconds) into `target`}."""
        lines = {}
        for one in self.series:
            units = self._units(one)
            if units in lines:
                continue
            if self.variable.standard_name == "surface_altitude" and units == "m2 s-2":
                lines[units] = (1 / names.GRAVITY, 0.0, 0)
                continue
            where = f"{one.file}: {self.name}"
            if not units and any(map(self._units, self.series)):
                raise UserError(f'{where} has no units, while other files have: give "source_units" in a recipe')
            lines[units] = _line(units or "1", target, where, self.statistic)
        return lines

    def convert(self, units: str, archive: str) -> None:
        """Give it in other units from now on. Raises UserError where that cannot be."""
        if tidy(units) == self.variable.units:
            return
        old = self.variable
        conversion_of = {line[2] for line in self._lines.values()}
        new = replace(
            old, units=tidy(units), standard_name=names.in_units(old.standard_name, tidy(units)), lower=None, upper=None
        )
        self.variable = with_bounds(new)
        try:
            self._lines = self._lines_into(tidy(units))
        except UserError as error:
            self.variable = old
            raise UserError(f"{archive}: {error}") from None
        if {line[2] for line in self._lines.values()} != conversion_of:
            self._retell(archive)

    def _retell(self, archive: str) -> None:
        """A mean rate has become an amount, or the other way round: both need the interval."""
        unknown = [made for made in self.made.values() if not made.seconds]
        if unknown:
            raise UserError(
                f"{archive}: {self.name}: a rate is no amount without an interval, which the file does not say: "
                'give "hours" in a recipe'
            )
        methods = METHODS["sum" if next(iter(self._lines.values()))[2] > 0 else "mean"]
        self.variable = replace(self.variable, cell_methods=methods)

    # When

    def _by_span(self) -> dict[Span, list[Series]]:
        """{span: the series that hold it}: several where files hold different members."""
        table: dict[Span, list[Series]] = {}
        twice: list[tuple[Span, Series]] = []
        for one in self.series:
            for span in one.keys:
                held = table.setdefault(span, [])
                taken = {number for other in held for number in other.members or ()}
                if held and self._in_turn(held[0], one):
                    held.append(one)
                elif held and (one.members is None) != (held[0].members is None):
                    alone, other = (one, held[0]) if one.members is None else (held[0], one)
                    raise UserError(
                        f"{alone.file}: {self.name} is of no member, while {other.file} holds members at the same "
                        "times: give it a coordinate such as number, or leave the file out"
                    )
                elif held and (one.members is None or taken & set(one.members)):
                    twice.append((span, one))
                else:
                    held.append(one)
        if twice:
            looked = [twice[i] for i in sorted({0, len(twice) // 2, len(twice) - 1})]
            pairs = [(table[span][0], one, span) for span, one in looked]
            unlike = [{a.file, b.file} for a, b, s in pairs if not np.array_equal(a.read(s), b.read(s), True)]
            differ = f", whose values differ (in {' and '.join(sorted(unlike[0]))})" if unlike else ""
            self.dropped[f"{self.name} stands more than once{differ}; the first in the files' order was kept"] += [
                span.frame for span, _ in twice
            ]
        return table

    def _in_turn(self, first: Series, other: Series) -> bool:
        """Whether a recipe names both, by values of one label, so that the first that is not missing holds."""
        lists = [key for key, value in self.choice.select.items() if isinstance(value, list)]
        return any(first.labels.get(key) != other.labels.get(key) for key in lists)

    def _made(self) -> dict[Frame, Made]:
        unknown = [span for span in self.table if span.start is None]
        forecasts = any(span.frame.lead for span in self.table)
        self.told = not unknown  # whether the files themselves say over which intervals they sum
        tolerance = 2 * max(one.precision for one in self.series)
        try:
            if unknown and self.statistic == "sum":
                starts, note = with_starts(
                    unknown,
                    self._raw,
                    accumulated=self.choice.accumulated,
                    hours=self.choice.hours,
                    steps=any(one.attributes.get("cell_methods") for one in self.series),
                    tolerance=tolerance,
                )
                self.table = self._renamed(starts)
                used = any(span.frame.lead for span in unknown) or not forecasts  # not the start of a run
                self.notes += [f"{self.name} {note}"] if note and used else []
            elif unknown and self.choice.hours:
                note = check_hours(unknown, self._raw, self.statistic, self.choice.hours, tolerance)
                self.notes += [f"{self.name} {note}"] if note else []
                seconds = round(self.choice.hours * 3600)
                self.table = self._renamed({span: span._replace(start=span.end - seconds) for span in unknown})
            elif self.statistic == "sum":
                self._check_said()
            kept = [s for s in self.table if not (forecasts and self.choice.hours and (s.start or 0) < 0)]  # in the run
            return disjoint(kept, self.statistic, self.choice.hours)
        except UserError as error:
            raise UserError(f"{self.series[0].file}: {self.name} {error}") from None

    def _check_said(self) -> None:
        """Raise UserError where a recipe contradicts the intervals that the files tell."""
        if self.choice.accumulated in (True, "run") and any((span.start or 0) > 0 for span in self.table):
            raise UserError(
                'covers intervals that the file tells, and they do not start with the run: leave "accumulated" out'
            )

    def _renamed(self, new: dict[Span, Span]) -> dict[Span, list[Series]]:
        """The table under spans that have a start; the series keep their own keys under them too."""
        moved = {id(one): replace(one, keys={new.get(s, s): key for s, key in one.keys.items()}) for one in self.series}
        self.series = list(moved.values())
        self._held.clear()
        return {new.get(span, span): [moved[id(one)] for one in several] for span, several in self.table.items()}

    def _note_intervals(self) -> None:
        lengths = sorted({made.seconds for made in self.made.values() if made.seconds})
        if len(lengths) > 1:
            hours = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
            self.notes.append(f"{self.name} mixes values over {hours} hours")
        words = ("precipitation", "fall_amount")
        amount = self.variable.units == "J m-2" or any(word in self.variable.standard_name for word in words)
        silent = all(made.start is None for made in self.made.values())
        if silent and (self.statistic in ("mean", "maximum", "minimum") or (amount and self.statistic == "")):
            self.notes.append(
                f"{self.name}: no file says over which interval its values are taken; they are used as they stand"
            )

    def lack(self, frame: Frame) -> str | None:
        """Why a frame cannot be had; None where it can."""
        made = self.made.get(frame)
        if made is None:
            return f"{self.name} is not there"
        for span, _ in made.terms:
            numbers = {number for one in self.table[span] for number in one.members or ()}
            if self.members is not None and numbers and not numbers.issuperset(self.members):
                return f"{self.name} lacks members {sorted(set(self.members) - numbers, key=str)}"
        return None

    # Values

    def read(self, frame: Frame, counts: Counter[tuple[str, str]], where: str) -> np.ndarray:
        """([member,] y, x) float32 of a frame. Raises UserError, beginning with `where`, for impossible values."""
        made = self.made[frame]
        if len(made.terms) == 1:
            values = self._field(made.terms[0][0], counts)
        else:
            parts = [np.float32(factor) * self._field(span, counts) for span, factor in made.terms]
            values = np.asarray(np.sum(parts, axis=0, dtype=np.float32))
        power = next(iter(self._lines.values()))[2]
        if power and made.seconds:
            values = (values * float(made.seconds) ** power).astype(np.float32)
        bounds = limit(self.variable)
        if bounds is None:
            return values
        if self.variable.cell_methods == "time: sum":
            counts[self.name, "amounts"] += int(np.isfinite(values).sum())
        rounding = sum(abs(factor) * self._rounding(span) for span, factor in made.terms)
        if len(made.terms) > 1:
            largest = float(np.nanmax(np.abs(self._field(made.terms[0][0], counts)), initial=0.0))
            rounding = max(rounding, (FALL if self.told else PACKED) * largest)
        values, clipped = within(values, bounds, rounding, self.choice.clip, where, self.window)
        if clipped:
            counts[self.name, self._clipping(made)] += clipped
        return values

    def _clipping(self, made: Made) -> str:
        if self.choice.clip:
            return "beyond a physical limit, clipped"
        if len(made.terms) > 1:
            return "small falls of the total, clipped to 0"
        return "beyond a physical limit by rounding, clipped"

    def _rounding(self, span: Span) -> float:
        """The largest error of a value by its packing, in the variable's units."""
        return max(2 * one.precision * self._lines[self._units(one)][0] for one in self.table[span])

    def _field(self, span: Span, counts: Counter[tuple[str, str]]) -> np.ndarray:
        """([member,] y, x) float32 of what stands at a span, the members of all files in order, in its units."""
        if span in self._held:
            self._held.move_to_end(span)
            return self._held[span]
        several = self.table[span]
        fields = [self._converted(one, self._masked(one, one.read(span), counts)) for one in several]
        if self.members is None:
            result, *others = [field if field.ndim == 2 else field[0] for field in fields]
            for other in others:
                result = np.where(np.isnan(result), other, result)
        else:
            result = np.empty((len(self.members), *several[0].grid.shape), np.float32)
            for one, values in zip(several, fields, strict=True):
                if one.members is None:
                    result[:] = values
                    continue
                values = values if values.ndim == 3 else values[None]
                for number, field in zip(one.members, values, strict=True):
                    if number in self.members:
                        result[self.members.index(number)] = field
        self._held[span] = result
        while len(self._held) > HELD:
            self._held.popitem(last=False)
        return result

    def _raw(self, span: Span) -> np.ndarray:
        """What stands at a span, as the first file has it, with missing values as NaN."""
        first = self.table[span][0]
        return self._masked(first, first.read(span), Counter())

    def _converted(self, series: Series, values: np.ndarray) -> np.ndarray:
        scale, offset, _ = self._lines[self._units(series)]
        return values if (scale, offset) == (1.0, 0.0) else (values * scale + offset).astype(np.float32)

    def _masked(self, series: Series, values: np.ndarray, counts: Counter[tuple[str, str]]) -> np.ndarray:
        """The values with sentinels, and what lies out of the chosen range or the file's own, as NaN; counted."""
        lower, upper = self.choice.valid_range or (max(series.valid[0], -HUGE), min(series.valid[1], HUGE))
        with np.errstate(invalid="ignore"):
            bad = np.isin(values, np.array((*SENTINELS, *self.choice.missing), np.float32))
            bad |= (values < lower) | (values > upper)
        if bad.any():
            counts[self.name, "sentinels and values out of range taken as missing"] += int(bad.sum())
            values = np.where(bad, np.float32(np.nan), values)
        return values


def _line(units: str, target: str, where: str, statistic: str) -> tuple[float, float, int]:
    """(scale, offset, power): value * scale + offset, times the interval's seconds to the power, is in `target`."""
    try:
        return (*conversion(units, target, where), 0)
    except UserError:
        for source, aim, power in ((f"{units} s", target, 1), (units, f"{target} s", -1)):
            try:
                scale, offset = conversion(source, aim, where)
            except UserError:
                continue
            if statistic not in ("mean", "sum"):
                raise UserError(
                    f'{where} is in "{units}" at an instant, which is no "{target}" over an interval'
                ) from None
            return scale, offset, power
        raise


def _static(series: Series) -> Series:
    """The first frame only, at no time."""
    key = next(iter(series.keys.values()))
    return replace(series, keys={Span(0, 0, 0): key}, statistic="point")
