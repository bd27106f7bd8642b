"""Training, validation and test splits: whole runs by initial time, or boxes of the high grid, with gaps between."""

import itertools
from typing import Any

import numpy as np

from dsr.data.calendar import label, parse
from dsr.data.recipe import ByRegion, ByTime
from dsr.data.store import SPLITS
from dsr.errors import UserError


def by_time(settings: ByTime, init: np.ndarray, lead: np.ndarray, calendar: str) -> tuple[np.ndarray, dict[str, Any]]:
    """(sample) int64 seconds of initial and lead time -> (sample) int8 codes, and a record of the splits.

    Runs are not divided. The last run of a split and the first of the next are separated by more than the longest lead
    time plus the gap, so that no valid time is in two splits. Dates are in `calendar`. Raises UserError for a date that
    it does not have, if a split is empty, and if a gap is too short.
    """
    runs, gap = np.unique(init), int(lead.max() + settings.gap_hours * 3600)
    if len(runs) == 1:
        start = label(runs[0], calendar)
        raise UserError(f"splits: there is only one initial time ({start}), too few to split by time; split by region")
    ranges = _ranges(settings, runs, gap, calendar)
    split = np.full(len(init), -1, np.int8)
    for code, (first, last) in enumerate(ranges):
        inside = (init >= first) & (init <= last)
        if not inside.any() and isinstance(getattr(settings, SPLITS[code]), tuple):
            requested, available = (
                " to ".join(label(t, calendar) for t in ends) for ends in ((first, last), runs[[0, -1]])
            )
            raise UserError(
                f"splits.{SPLITS[code]}: no initial time is in {requested}; "
                f"the data cover {available} ({calendar} calendar)"
            )
        if not inside.any():
            raise UserError(
                f"splits: no run is left for {SPLITS[code]} ({len(runs)} initial times, {gap / 3600:g} h between "
                f"splits); give a shorter gap or more data, or split by region"
            )
        split[inside] = code
    for a, b in itertools.pairwise(sorted(range(3), key=lambda code: ranges[code])):
        between = init[split == b].min() - init[split == a].max() if (split == a).any() else 0
        if between <= gap:
            raise UserError(
                f"splits: {SPLITS[b]} starts {between / 3600:g} h after the last run of {SPLITS[a]}; "
                f"more than {gap / 3600:g} h are needed (longest lead and gap)"
            )
    spans = {n: [label(t, calendar) for t in span] for n, span in zip(SPLITS, ranges, strict=True)}
    return split, {"by": "time", **spans, "gap_hours": gap / 3600}


def by_dates(settings: ByTime, init: np.ndarray, lead: np.ndarray, calendar: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Like `by_time`, for runs that join a store: -1 if the recipe has shares, or for dates in no split."""
    split = np.full(len(init), -1, np.int8)
    if all(isinstance(getattr(settings, name), tuple) for name in SPLITS):
        for code, (first, last) in enumerate(_ranges(settings, np.unique(init), 0, calendar)):
            split[(init >= first) & (init <= last)] = code
    return split, {}


def by_region(settings: ByRegion, shape: tuple[int, int], factor: int) -> tuple[np.ndarray, dict[str, Any]]:
    """(y, x) int8 codes on a high grid of this shape, and a record of the splits.

    Raises UserError for a box that is not on the grid, boxes closer than the gap, or a split without points.
    """
    gap = settings.gap or max(factor, min(4 * factor, max(shape) // 20))
    given = (settings.validation, settings.test)
    boxes = _strips(shape, gap) if given == (None, None) else dict(zip(SPLITS[1:], given, strict=True))
    region, inner, outer = np.zeros(shape, np.int8), {}, {}
    for name, box in boxes.items():
        if box is None or not (0 <= box[0] < box[1] < shape[0] and 0 <= box[2] < box[3] < shape[1]):
            raise UserError(
                f"splits.{name}: {box} is not a [first row, last row, first column, last column] in {shape}"
            )
        inner[name] = (slice(box[0], box[1] + 1), slice(box[2], box[3] + 1))
        outer[name] = tuple(slice(max(0, s.start - gap), s.stop + gap) for s in inner[name])
        region[outer[name]] = -1
    region[inner["validation"]] = SPLITS.index("validation")
    if (region[outer["test"]] > 0).any():
        raise UserError(f"splits: the validation and test boxes overlap or lie closer than the gap of {gap} points")
    region[inner["test"]] = SPLITS.index("test")
    if not (region == 0).any():
        raise UserError("splits: no points are left for training; give smaller boxes or a smaller gap")
    return region, {"by": "region", "gap_points": gap, **{name: list(box) for name, box in boxes.items() if box}}


def _ranges(settings: ByTime, runs: np.ndarray, gap: int, calendar: str) -> list[tuple[int, int]]:
    """First and last initial time of each split; last < first if it is empty."""
    shares = [getattr(settings, name) for name in SPLITS]
    if all(isinstance(share, tuple) for share in shares):
        return [_range(name, share[0], share[1], calendar) for name, share in zip(SPLITS, shares, strict=True)]
    if not all(isinstance(share, float) for share in shares) or not 0 < sum(shares) <= 1 + 1e-9:
        raise UserError("splits: train, validation and test are either three shares (sum at most 1) or three ranges")
    usable = max(0, len(runs) - 2 * int(gap // np.median(np.diff(runs))))  # what remains after two gaps
    edges = np.floor(np.cumsum([0, *shares]) * usable + 1e-9).astype(int)
    ranges: list[tuple[int, int]] = []
    for count in np.diff(edges):
        later = runs if not ranges else runs[runs > ranges[-1][1] + gap]
        chosen = later[:count]
        ranges.append((int(chosen[0]), int(chosen[-1])) if len(chosen) else (int(runs[-1]) + 1, int(runs[-1])))
    return ranges


def _strips(shape: tuple[int, int], gap: int) -> dict[str, Any]:
    """Across the longer side: 70 % for training, 15 % (less the gaps) for validation, 15 % for test."""
    long = int(shape[1] >= shape[0])
    start, end = (round(shape[long] * share) for share in (0.7, 0.85))
    across = (0, shape[1 - long] - 1)
    spans = {"validation": (start, end - gap - 1), "test": (end, shape[long] - 1)}
    return {name: (*across, *span) if long else (*span, *across) for name, span in spans.items()}


def _range(split: str, first: str, last: str, calendar: str) -> tuple[int, int]:
    try:
        return parse(first, calendar), parse(last, calendar, end=True)
    except UserError as error:
        raise UserError(f"splits.{split}: {error}") from None
