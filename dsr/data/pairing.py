"""Which low and high frames form pairs, and whether both cover the same intervals."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from dsr.data.archive import Archive
from dsr.data.calendar import when
from dsr.data.joined import Joined
from dsr.data.series import Frame
from dsr.errors import UserError

AnyArchive = Archive | Joined


def pair(low: AnyArchive, high: Archive, requested: str | None) -> tuple[str, np.ndarray, np.ndarray]:
    """The pairing, and the frames (n) int64 of low and of high that form pairs. The others are recorded as dropped.

    Raises UserError if no times match, if both pairings are possible and differ but none is requested, or if all shared
    variables cover different intervals.
    """
    same_run = {frame: i for i, frame in enumerate(high.frames)}
    valid_time: dict[int, int] = {}
    for i in sorted(
        range(len(high.frames)), key=lambda i: high.frames[i][1]
    ):  # the shortest lead time for each valid time
        valid_time.setdefault(sum(high.frames[i]), i)
    candidates = {
        "same-run": [(i, same_run[f]) for i, f in enumerate(low.frames) if f in same_run],
        "valid-time": [(i, valid_time[sum(f)]) for i, f in enumerate(low.frames) if sum(f) in valid_time],
    }
    fitting = [name for name, pairs in candidates.items() if pairs]
    if requested is None and len(fitting) == 2 and candidates["same-run"] != candidates["valid-time"]:
        raise UserError(
            f"low and high can be paired as same-run ({len(candidates['same-run'])} pairs) and by valid-time "
            f'({len(candidates["valid-time"])} pairs): choose one (--pairing, or "pairing" in the recipe)'
        )
    pairing = requested or (fitting[0] if fitting else "valid-time")
    reasons = [_interval_mismatch(low, high, low.frames[i], high.frames[j]) for i, j in candidates[pairing]]
    pairs = [pair for pair, reason in zip(candidates[pairing], reasons, strict=True) if not reason]
    if not pairs:
        raise UserError(_no_pairs(low, high, pairing, next(iter(reasons), "")))
    for (i, _), reason in zip(candidates[pairing], reasons, strict=True):
        if reason:
            low.dropped.setdefault(reason, []).append(low.frames[i])
    matched = [{pair[side] for pair in candidates[pairing]} for side in (0, 1)]
    for archive, other, used in ((low, "high", matched[0]), (high, "low", matched[1])):
        left = [frame for i, frame in enumerate(archive.frames) if i not in used]
        if left:
            archive.dropped.setdefault(f"no {pairing} partner in the {other} archive", []).extend(left)
    return pairing, *np.array(pairs, np.int64).T  # type: ignore[return-value]


def _no_pairs(low: AnyArchive, high: Archive, pairing: str, reason: str) -> str:
    if reason:
        return f"no time of the low archive ({low.name}) can be paired with the high one ({high.name}): {reason}"
    ends = [f"{a.name}: {when(a.frames[0], a.calendar)} to {when(a.frames[-1], a.calendar)}" for a in (low, high)]
    hours = [{(init + lead) % 86400 for init, lead in a.frames} for a in (low, high)]
    shift = ""
    if all(len(h) == 1 for h in hours) and hours[0] != hours[1]:
        stamps = [f"{h.pop() / 3600:g}" for h in hours]
        shift = f'; both are daily, stamped at {stamps[0]} and at {stamps[1]} h: give "offset_hours" in a recipe'
    return f"no time of the low archive ({ends[0]}) is in the high one ({ends[1]}), paired by {pairing}{shift}"


def _interval_mismatch(low: AnyArchive, high: Archive, of_low: Frame, of_high: Frame) -> str:
    """Why two frames with matching times are not a pair; "" if they are one."""
    for name in shared(low, high):
        a, b = low.interval(name, of_low), high.interval(name, of_high)
        if a is None or b is None:
            continue
        lows, highs = (tuple(edge + frame[0] for edge in i) for i, frame in ((a, of_low), (b, of_high)))
        if lows != highs:
            hours = [(i[1] - i[0]) / 3600 for i in (lows, highs)]
            if hours[0] != hours[1]:
                return f"{name} covers {hours[0]:g} h in the low archive and {hours[1]:g} h in the high one"
            return f"{name} covers intervals that begin {(lows[0] - highs[0]) / 3600:g} h apart in low and high"
    return ""


def shared(low: AnyArchive, high: Archive) -> list[str]:
    """The names of the variables in both."""
    names = {variable.name for variable in low.variables}
    return [variable.name for variable in high.variables if variable.name in names]


def doubts(low: AnyArchive, high: Archive) -> Iterator[str]:
    """Notes on shared variables that differ, or on the lack of any."""
    if not shared(low, high):
        lows, highs = (", ".join(v.name for v in a.variables) for a in (low, high))
        yield (
            f"low has {lows}, high has {highs}: no variable in common, so every prediction starts from the mean; "
            "if two names mean the same, rename one in a recipe"
        )
    methods = [{v.name: v.cell_methods for v in a.variables} for a in (low, high)]
    for name in shared(low, high):
        a, b = methods[0][name], methods[1][name]
        if a != b:
            kinds = [m.removeprefix("time: ") if m else "value without a known interval" for m in (a, b)]
            yield f"{name} is a {kinds[0]} in the low archive and a {kinds[1]} in the high one"


def intervals(archive: AnyArchive) -> dict[str, list[list[float]]]:
    """{variable: [[from, to], ...]}: hours relative to valid time between which sums, means or extremes are taken."""
    result: dict[str, set[tuple[float, float]]] = defaultdict(set)
    for variable in archive.variables:
        for frame in archive.frames:
            if interval := archive.interval(variable.name, frame):
                result[variable.name].add(((interval[0] - frame[1]) / 3600, (interval[1] - frame[1]) / 3600))
    return {name: [list(hours) for hours in sorted(of_name)] for name, of_name in result.items()}
