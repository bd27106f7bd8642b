"""One variable of an archive: fields in one unit, over known intervals, with all members, from any number of files."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import replace

import numpy as np

from dsr.data import names
from dsr.data.accumulation import Combination, disjoint
from dsr.data.accumulation.rules import PACKING, check_hours, with_starts
from dsr.data.choice import Choice
from dsr.data.decoding.statistic import METHODS
from dsr.data.limits import EVERYWHERE, limit, within
from dsr.data.series import Frame, Series, Span
from dsr.data.store import Variable, with_bounds
from dsr.data.units import conversion, tidy
from dsr.errors import UserError

SENTINELS = (-999.0, -9999.0, -99999.0)  # written by many tools without a _FillValue attribute
LARGEST = 1e19  # no geophysical value exceeds this: 9.97e36, 1e20 and the like are missing
MAX_FALL = 0.05  # of a field's largest total: with known intervals, falls up to this size come from earlier packing
RECENT = 3  # fields kept in memory, since each total is used for two amounts


class Quantity:
    """A variable that one or more series hold together.

    `combinations` gives the value of each frame, `dropped` and `notes` what was left out or is doubtful. The archive
    sets `members`, which every field must have, and `window`, outside of which values may be impossible since they are
    not used. Raises UserError if units are incompatible, or the interval of a sum is unknown.
    """

    def __init__(self, name: str, series: list[Series], choice: Choice, static: bool = False):
        self.name, self.choice = name, choice
        self.dropped: dict[str, list[Frame]] = defaultdict(list)
        self.members: list[int | str] | None = None
        self.window = EVERYWHERE
        self.series = [_static(s) for s in series] if static else series
        self.notes = [f"{name} {note}" for s in series for note in s.notes]
        self.table = self._by_span()
        self._recent: OrderedDict[Span, np.ndarray] = OrderedDict()
        statistics = sorted({s.statistic for s in self.series})
        if len(statistics) > 1:
            first, other = statistics[0] or "value", statistics[1]
            raise UserError(f"{series[0].file}: {name} is a {first} here and a {other} in other files")
        self.statistic = statistics[0] or self._implied_statistic()
        self.variable = self._describe()
        self._conversions = self._conversions_into(self.variable.units)
        self.combinations = self._combine()
        if any(power for _, _, power in self._conversions.values()):
            self._exchange_rate_and_amount(series[0].file)
        self._note_intervals()

    # Name, units and statistic

    def _implied_statistic(self) -> str:
        """The statistic that a recipe implies if no file gives one: "accumulated" means sums, "hours" alone means."""
        if self.choice.accumulated is not None:
            return "sum"
        return "mean" if self.choice.hours else ""

    def _describe(self) -> Variable:
        first, choice = self.series[0], self.choice
        units = {self._units(s) for s in self.series}
        target = tidy(choice.units) or self._units(first)
        if len(units) > 1:
            self.notes.append(
                f"{self.name} is in {' and in '.join(sorted(units))} in different files; all are converted to {target}"
            )
        given = next((s.attributes["standard_name"] for s in self.series if s.attributes.get("standard_name")), "")
        standard = choice.standard_name or names.standard_name(given, first.short_name, self._units(first))
        standard = (
            standard if choice.standard_name or target == self._units(first) else names.in_units(standard, target)
        )
        if standard == "geopotential" and target == "m2 s-2" and self._is_surface(first):
            standard, target = "surface_altitude", "m"
        long_name = choice.long_name or first.attributes.get("long_name", "")
        methods = METHODS.get(self.statistic, "")
        return with_bounds(Variable(self.name, target or "1", standard, long_name, methods))

    def _units(self, series: Series) -> str:
        """The actual units of the values of a series."""
        choice = self.choice
        return tidy(choice.source_units) or tidy(series.attributes.get("units", "")) or tidy(choice.units)

    def _is_surface(self, series: Series) -> bool:
        return series.level is None or series.level[0] == "surface"

    def _conversions_into(self, target: str) -> dict[str, tuple[float, float, int]]:
        """{units of a series: (scale, offset, power of the interval's seconds) that give `target`}."""
        lines = {}
        for s in self.series:
            units = self._units(s)
            if units in lines:
                continue
            if self.variable.standard_name == "surface_altitude" and units == "m2 s-2":
                lines[units] = (1 / names.GRAVITY, 0.0, 0)
                continue
            where = f"{s.file}: {self.name}"
            if not units and any(map(self._units, self.series)):
                raise UserError(f'{where} has no units, but other files have: give "source_units" in a recipe')
            lines[units] = _conversion(units or "1", target, where, self.statistic)
        return lines

    def convert(self, units: str, archive: str) -> None:
        """From now on, give it in other units. Raises UserError if it cannot be converted."""
        if tidy(units) == self.variable.units:
            return
        old = self.variable
        old_powers = {line[2] for line in self._conversions.values()}
        new = replace(
            old, units=tidy(units), standard_name=names.in_units(old.standard_name, tidy(units)), lower=None, upper=None
        )
        self.variable = with_bounds(new)
        try:
            self._conversions = self._conversions_into(tidy(units))
        except UserError as error:
            self.variable = old
            raise UserError(f"{archive}: {error}") from None
        if {line[2] for line in self._conversions.values()} != old_powers:
            self._exchange_rate_and_amount(archive)

    def _exchange_rate_and_amount(self, archive: str) -> None:
        """Set `cell_methods` after a mean rate has become an amount, or vice versa: both need the interval."""
        if not all(combination.seconds for combination in self.combinations.values()):
            raise UserError(
                f"{archive}: {self.name}: a rate and an amount differ by an interval, which the file does not give: "
                'give "hours" in a recipe'
            )
        methods = METHODS["sum" if next(iter(self._conversions.values()))[2] > 0 else "mean"]
        self.variable = replace(self.variable, cell_methods=methods)

    # Frames and intervals

    def _by_span(self) -> dict[Span, list[Series]]:
        """{span: the series that hold it}: several if files hold different members."""
        table: dict[Span, list[Series]] = {}
        repeated: list[tuple[Span, Series]] = []
        for s in self.series:
            for span in s.keys:
                group = table.setdefault(span, [])
                known = {number for other in group for number in other.members or ()}
                if group and self._are_alternatives(group[0], s):
                    group.append(s)
                elif group and (s.members is None) != (group[0].members is None):
                    without, other = (s, group[0]) if s.members is None else (group[0], s)
                    raise UserError(
                        f"{without.file}: {self.name} has no member number, but {other.file} holds members at the same "
                        "times: give it a coordinate such as number, or leave the file out"
                    )
                elif group and (s.members is None or known & set(s.members)):
                    repeated.append((span, s))
                else:
                    group.append(s)
        if repeated:
            checked = [repeated[i] for i in sorted({0, len(repeated) // 2, len(repeated) - 1})]
            pairs = [(table[span][0], s, span) for span, s in checked]
            unequal = [{a.file, b.file} for a, b, s in pairs if not np.array_equal(a.read(s), b.read(s), True)]
            differ = f" with different values (in {' and '.join(sorted(unequal[0]))})" if unequal else ""
            self.dropped[f"{self.name} occurs more than once{differ}; the first in the files' order was kept"] += [
                span.frame for span, _ in repeated
            ]
        return table

    def _are_alternatives(self, first: Series, other: Series) -> bool:
        """Whether a recipe lists the labels of both, so that the first value that is not missing is used."""
        lists = [key for key, value in self.choice.select.items() if isinstance(value, list)]
        return any(first.labels.get(key) != other.labels.get(key) for key in lists)

    def _combine(self) -> dict[Frame, Combination]:
        unknown = [span for span in self.table if span.start is None]
        forecasts = any(span.frame.lead for span in self.table)
        self.has_intervals = not unknown  # whether the files themselves give the intervals
        tolerance = 2 * max(s.precision for s in self.series)
        try:
            if unknown and self.statistic == "sum":
                starts, note = with_starts(
                    unknown,
                    self._raw,
                    accumulated=self.choice.accumulated,
                    hours=self.choice.hours,
                    steps=any(s.attributes.get("cell_methods") for s in self.series),
                    tolerance=tolerance,
                )
                self.table = self._with_spans(starts)
                used = any(span.frame.lead for span in unknown) or not forecasts  # other than at the start of a run
                self.notes += [f"{self.name} {note}"] if note and used else []
            elif unknown and self.choice.hours:
                note = check_hours(unknown, self._raw, self.statistic, self.choice.hours, tolerance)
                self.notes += [f"{self.name} {note}"] if note else []
                seconds = round(self.choice.hours * 3600)
                self.table = self._with_spans({span: span._replace(start=span.end - seconds) for span in unknown})
            elif self.statistic == "sum":
                self._check_intervals()
            kept = [
                t for t in self.table if not (forecasts and self.choice.hours and (t.start or 0) < 0)
            ]  # within the run
            return disjoint(kept, self.statistic, self.choice.hours)
        except UserError as error:
            raise UserError(f"{self.series[0].file}: {self.name} {error}") from None

    def _check_intervals(self) -> None:
        """Raise UserError if a recipe contradicts the intervals in the files."""
        if self.choice.accumulated in (True, "run") and any((span.start or 0) > 0 for span in self.table):
            raise UserError('has intervals in the file, and they do not start with the run: leave "accumulated" out')

    def _with_spans(self, new: dict[Span, Span]) -> dict[Span, list[Series]]:
        """The table with spans that have a start; the keys of the series are changed too."""
        changed = {
            id(s): replace(s, keys={new.get(span, span): key for span, key in s.keys.items()}) for s in self.series
        }
        self.series = list(changed.values())
        self._recent.clear()
        return {new.get(span, span): [changed[id(s)] for s in group] for span, group in self.table.items()}

    def _note_intervals(self) -> None:
        lengths = sorted({combination.seconds for combination in self.combinations.values() if combination.seconds})
        if len(lengths) > 1:
            hours = ", ".join(f"{seconds / 3600:g}" for seconds in lengths)
            self.notes.append(f"{self.name} mixes values over {hours} hours")
        words = ("precipitation", "fall_amount")
        amount = self.variable.units == "J m-2" or any(word in self.variable.standard_name for word in words)
        silent = all(combination.start is None for combination in self.combinations.values())
        if silent and (self.statistic in ("mean", "maximum", "minimum") or (amount and self.statistic == "")):
            self.notes.append(f"{self.name}: no file gives the interval of its values; they are used as they are")

    def reason_incomplete(self, frame: Frame) -> str | None:
        """Why a frame is incomplete; None if it is complete."""
        combination = self.combinations.get(frame)
        if combination is None:
            return f"{self.name} is absent"
        for span, _ in combination.terms:
            numbers = {number for s in self.table[span] for number in s.members or ()}
            if self.members is not None and numbers and not numbers.issuperset(self.members):
                return f"{self.name} lacks members {sorted(set(self.members) - numbers, key=str)}"
        return None

    # Values

    def read(self, frame: Frame, counts: Counter[tuple[str, str]], where: str) -> np.ndarray:
        """([member,] y, x) float32 of a frame. Raises UserError, starting with `where`, for impossible values."""
        combination = self.combinations[frame]
        if len(combination.terms) == 1:
            values = self._field(combination.terms[0][0], counts)
        else:
            parts = [np.float32(factor) * self._field(span, counts) for span, factor in combination.terms]
            values = np.asarray(np.sum(parts, axis=0, dtype=np.float32))
        power = next(iter(self._conversions.values()))[2]
        if power and combination.seconds:
            values = (values * float(combination.seconds) ** power).astype(np.float32)
        bounds = limit(self.variable)
        if bounds is None:
            return values
        if self.variable.cell_methods == "time: sum":
            counts[self.name, "amounts"] += int(np.isfinite(values).sum())
        rounding = sum(abs(factor) * self._rounding(span) for span, factor in combination.terms)
        if len(combination.terms) > 1:
            largest = float(np.nanmax(np.abs(self._field(combination.terms[0][0], counts)), initial=0.0))
            rounding = max(rounding, (MAX_FALL if self.has_intervals else PACKING) * largest)
        values, clipped = within(values, bounds, rounding, self.choice.clip, where, self.window)
        if clipped:
            counts[self.name, self._clipping(combination)] += clipped
        return values

    def _clipping(self, combination: Combination) -> str:
        if self.choice.clip:
            return "beyond a physical limit, clipped"
        if len(combination.terms) > 1:
            return "small falls of the total, clipped to 0"
        return "beyond a physical limit by rounding, clipped"

    def _rounding(self, span: Span) -> float:
        """The largest error of a value due to packing, in the variable's units."""
        return max(2 * s.precision * self._conversions[self._units(s)][0] for s in self.table[span])

    def _field(self, span: Span, counts: Counter[tuple[str, str]]) -> np.ndarray:
        """([member,] y, x) float32 at a span, with the members of all files in order, in the variable's units."""
        if span in self._recent:
            self._recent.move_to_end(span)
            return self._recent[span]
        group = self.table[span]
        fields = [self._converted(s, self._masked(s, s.read(span), counts)) for s in group]
        if self.members is None:
            result, *others = [field if field.ndim == 2 else field[0] for field in fields]
            for other in others:
                result = np.where(np.isnan(result), other, result)
        else:
            result = np.empty((len(self.members), *group[0].grid.shape), np.float32)
            for s, values in zip(group, fields, strict=True):
                if s.members is None:
                    result[:] = values
                    continue
                values = values if values.ndim == 3 else values[None]
                for number, field in zip(s.members, values, strict=True):
                    if number in self.members:
                        result[self.members.index(number)] = field
        self._recent[span] = result
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return result

    def _raw(self, span: Span) -> np.ndarray:
        """The values at a span in the first file, in its units, with missing values as NaN."""
        first = self.table[span][0]
        return self._masked(first, first.read(span), Counter())

    def _converted(self, series: Series, values: np.ndarray) -> np.ndarray:
        scale, offset, _ = self._conversions[self._units(series)]
        return values if (scale, offset) == (1.0, 0.0) else (values * scale + offset).astype(np.float32)

    def _masked(self, series: Series, values: np.ndarray, counts: Counter[tuple[str, str]]) -> np.ndarray:
        """The values, with NaN for sentinels and outside the valid range of the recipe or the file; counted."""
        lower, upper = self.choice.valid_range or (max(series.valid[0], -LARGEST), min(series.valid[1], LARGEST))
        with np.errstate(invalid="ignore"):
            bad = np.isin(values, np.array((*SENTINELS, *self.choice.missing), np.float32))
            bad |= (values < lower) | (values > upper)
        if bad.any():
            counts[self.name, "sentinels and values out of range treated as missing"] += int(bad.sum())
            values = np.where(bad, np.float32(np.nan), values)
        return values


def _conversion(units: str, target: str, where: str, statistic: str) -> tuple[float, float, int]:
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
                    f'{where} is in "{units}" at an instant, which cannot become "{target}" over an interval'
                ) from None
            return scale, offset, power
        raise


def _static(series: Series) -> Series:
    """Only the first frame, without a time."""
    key = next(iter(series.keys.values()))
    return replace(series, keys={Span(0, 0, 0): key}, statistic="point")
