"""The report of a study: how more GPUs affect the result, with pictures and the CSV file behind each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsr.files import write_csv
from dsr.report import study_figures as figures
from dsr.report import study_words as words
from dsr.report.pages import Cell, Picture, Row, Table, saved_picture
from dsr.report.pages import write as write_page
from dsr.study.ablation import SEQUENTIAL
from dsr.study.progress import duration
from dsr.study.study import Comparison, Group, Impossible, Study

GROUP = ("data", "budget", "arm", "gpus")
TABLES = {  # the columns of each picture's CSV, from the study's groups
    "skill": ("effective_batch", "share", "learning_rate", "updates", "warmup_updates", "runs", "diverged",
              "diverged_interval", "skill", "skill_interval", "difference", "difference_interval", "reason"),
    "noise": ("effective_batch", "noise_scale", "noise_scale_unknown"),
    "target": ("effective_batch", "reached_target", "runs", "updates_to_target", "samples_to_target", "slot_seconds",
               "fixed_seconds", "micro_batch", "predicted_update_seconds", "predicted_seconds_to_target"),
}  # fmt: skip


def write(folder: Path, study: Study, rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> Path:
    """Write FOLDER/report/index.html, whole or not at all, tables and pictures beside it; returns the page's path.

    `study` is the content of study.json, `rows` that of cells.csv, and `curves` has a line for each validation.
    """
    report = folder / "report"
    report.mkdir(exist_ok=True)
    for name, columns in TABLES.items():
        write_csv(report / f"{name}.csv", [_flat(group, (*GROUP, *columns)) for group in study.groups])
    speeds = speed_ups(study)
    write_csv(report / "curves.csv", curves)
    write_csv(report / "speedup.csv", speeds)
    return write_page(
        report / "index.html",
        "study.html",
        title=study.title,
        facts=[_facts(study)],
        answer=words.answer(study),
        kept=_kept(study),
        glance=[table for data in study.data for table in _glance(study, data)],
        symbols=words.SYMBOLS,
        chance=_chance(study),
        definitions=words.definitions(study),
        **_pictures(report, study, curves, speeds),
        auto=_auto(study),
        tuning=words.tuning(study),
        shared=words.shared(study),
        impossible=_impossible(study),
        failed=_failed(rows),
    )


def speed_ups(study: Study) -> list[dict[str, Any]]:
    """Samples per second on N GPUs relative to one: predicted for every cell, measured on real ranks.

    The two runs of a proof do the same work on N ranks and on one device, so the ratio of their times is the speed-up;
    it is used if every rank had its own core.
    """
    lines = []
    for group in study.possible:
        gain = group.predicted_speed_up
        if gain and group.mode != "auto" and group.arm != SEQUENTIAL and group.budget == "epochs":
            lines.append({**{key: getattr(group, key) for key in ("data", "arm", "gpus")}, "how": "predicted",
                          "speed_up": gain, "efficiency": gain / group.gpus})  # fmt: skip
    for proof in study.proofs:
        real, alone = proof.update_seconds
        if proof.timed and real and alone:
            lines.append({**{key: getattr(proof, key) for key in ("data", "arm", "gpus")}, "how": "measured",
                          "speed_up": alone / real, "efficiency": alone / real / proof.gpus})  # fmt: skip
    return lines


def _pictures(
    report: Path, study: Study, curves: list[dict[str, Any]], speeds: list[dict[str, Any]]
) -> dict[str, Picture | list[Picture | None] | None]:
    """Pictures by their names in the template, also saved as SVG for talks and papers; None if nothing is drawn."""
    timed = next((proof.data for proof in study.proofs), next(iter(study.data)))

    def saved(figure: Any, name: str, caption: str, table: str) -> Picture | None:
        return saved_picture(figure, report / f"{name}.svg", caption, (f"{table}.csv", f"{name}.svg"))

    return {
        "skill": [
            saved(
                figures.skill(study, data),
                f"skill-{data}",
                f"{about.label}: test skill of the runs that converged, mean and interval over the seeds. Black: "
                "the mean of the sequential runs; grey: the range in which a single run counts as the same. Long bars "
                "extend beyond the axes.",
                "skill",
            )
            for data, about in study.data.items()
        ],
        "share": saved(
            figures.share(study),
            "share",
            "Loss of skill against the share of the training set in one update, for data sets of different size. The "
            "inverse of the share is the number of updates in an epoch.",
            "skill",
        ),
        "curves": saved(
            figures.curves(study, curves),
            "curves",
            "Skill on validation data at the largest GPU count. Left: against samples actually seen; right: against "
            "updates. Lines are medians over the seeds and bands their range, as long as all of them run; below the "
            "dashed line, interpolation is better. Strong scaling coincides with the sequential curve wherever it is "
            "possible.",
            "curves",
        ),
        "noise": saved(
            figures.noise(study),
            "noise",
            "The noise scale B = tr(covariance) / |gradient|² (arXiv:1812.06162) over the last updates of each run, "
            "median over the seeds for which it is known, against the effective batch. Above the dashed line, where it "
            "is larger than the batch, a larger batch still averages out noise; below it, hardly. Since no sample "
            "repeats within an epoch, values near or above the size of the training set only mean that the gradient is "
            "almost pure noise.",
            "noise",
        ),
        "target": saved(
            figures.target(study),
            "target",
            "Predicted, not measured: updates to the target (median of the seeds that reached it) x the predicted time "
            "of an update on N GPUs: slots / N x the time of a slot, and the time of an update outside its slots, both "
            f"measured here, and {_wires(study)}. {_slots(study)} A cross at the top means that no more than half "
            "of the seeds reached the target.",
            "target",
        ),
        "speedup": saved(
            figures.speedup(study, [line for line in speeds if line["data"] == timed]),
            "speedup",
            f"{study.data[timed].label}. Samples per second relative to one GPU. Lines are predicted as in the section "
            f"above; framed markers are measured, with one core for each of at most {study.cores} real ranks, which "
            f"communicate through shared memory. {_measured_speed_ups(speeds, timed)}",
            "speedup",
        ),
    }


def _kept(study: Study) -> Table:
    """The share of one GPU's skill that the best weak arm keeps, by data set and budget and by GPU count."""
    best = {
        f"{about.label}, {title}": (about, arms)
        for data, about in study.data.items()
        for budget, title in figures.BUDGETS.items()
        if about.sequential_skill and (arms := words.best_weak(study, data, budget))
    }
    counts = sorted({gpus for _, arms in best.values() for gpus in arms})
    rows = []
    for heading, (about, arms) in best.items():
        cells: list[str | Cell] = [heading]
        for gpus in counts:
            group = arms.get(gpus)
            text = words.kept(group, about) if gpus in arms else ""
            cells.append(Cell(text, note=study.arms[group.arm] if group else ""))
        rows.append(Row(cells))
    return Table(
        ["", *(f"{count} GPUs" for count in counts)],
        rows,
        "Weak scaling: the share of one GPU's skill that the best arm keeps (chosen in hindsight, which the intervals "
        "do not account for)",
        "loose",
    )


def _facts(study: Study) -> str:
    seeds = max((group.runs for group in study.groups), default=0)
    return f"{study.runs} runs, {seeds} seeds, {duration(study.run_seconds)} of one core · {study.file}"


def _glance(study: Study, data: str) -> list[Table]:
    """Arms by GPU counts, a table for each budget: mean skill, and its verdict relative to one GPU."""
    about, tables = study.data[data], []
    groups = [g for g in study.groups if g.data == data and g.arm != SEQUENTIAL]
    for budget, title in figures.BUDGETS.items():
        of_budget = [g for g in groups if g.budget == budget]
        if not of_budget:
            continue
        counts = sorted({g.gpus for g in of_budget})
        rows = []
        for arm in dict.fromkeys(g.arm for g in of_budget):
            by_count = {g.gpus: g for g in of_budget if g.arm == arm}
            rows.append(Row([study.arms[arm], *(_entry(by_count.get(count)) for count in counts)]))
        mean = sum(about.sequential_skill) / len(about.sequential_skill) if about.sequential_skill else None
        reference = "" if mean is None else f"; one GPU: {mean:.3f}"
        tables.append(Table(["GPUs", *map(str, counts)], rows, f"{about.label}, {title}: skill by GPUs{reference}"))
    return tables


def _entry(group: Group | Impossible | None) -> Cell:
    return Cell("") if group is None else Cell(words.entry(group), words.verdict(group))


def _chance(study: Study) -> str:
    compared = [g for g in study.possible if g.difference_interval and not g.identical]
    count = (1 - study.definitions.level) * len(compared)
    return f"Of {len(compared)} comparisons, about {count:.0f} would show a difference by chance alone."


def _auto(study: Study) -> Table:
    """What auto chose and needed for each data set, relative to the best cells of the grid."""
    rows = []
    for auto in study.auto:
        cells = [f"{study.data[auto.data].label}, at most {auto.gpus} GPUs", words.chosen(auto.runs)]
        for compared, digits in ((auto.samples, ".0f"), (auto.seconds, ".3g")):
            best = compared.best_cell
            cells += [
                "not all reached it" if compared.auto is None else f"{compared.auto:{digits}}",
                "none"
                if best is None
                else f"{compared.best:{digits}}: {study.arms[best.arm]}, {best.gpus} GPUs, equal {best.budget}",
                _ratio(compared),
            ]
        cells.append(f"{auto.runs[0].probe_updates} updates, {auto.runs[0].probe_samples} samples" if auto.runs else "")
        rows.append(Row(cells))
    head = ["", "batch on GPUs (seeds)", "samples", "grid's best", "ratio", "time (s)", "grid's best", "ratio"]
    return Table([*head, "probe"], rows, "To the target", "loose")


def _wires(study: Study) -> str:
    wires = study.wires
    return f"the exchange of gradients over a network of {wires.latency_us:g} µs and {wires.gbit_per_s:g} Gbit/s"


def _ratio(compared: Comparison) -> str:
    """The ratio of medians, and the range over seeds: "1.05 (0.76 to 1.33)"."""
    seeds = compared.ratios_by_seed
    return "" if compared.ratio is None else f"{compared.ratio:.2f} ({min(seeds):.2f} to {max(seeds):.2f})"


def _measured_speed_ups(speeds: list[dict[str, Any]], data: str) -> str:
    """How the measured speed-ups compare with the predicted ones."""
    predicted = {(s["arm"], s["gpus"]): s["speed_up"] for s in speeds if s["data"] == data and s["how"] == "predicted"}
    parts = [
        f"{s['arm']} on {s['gpus']}: {s['speed_up']:.2f} measured, {predicted[s['arm'], s['gpus']]:.2f} predicted"
        for s in speeds
        if s["how"] == "measured" and (s["arm"], s["gpus"]) in predicted
    ]
    return f"{'; '.join(parts)}." if parts else ""


def _slots(study: Study) -> str:
    """The time of a slot for each micro-batch: arms with different micro-batches differ in time for that reason."""
    texts = []
    for data, about in study.data.items():
        groups = [g for g in study.possible if g.data == data and g.slot_seconds]
        times = {g.micro_batch: 1e3 * (g.slot_seconds or 0) for g in groups}
        if groups:
            each = ", ".join(f"{times[size]:.2g} ms for a slot of {size}" for size in sorted(times))
            texts.append(f"{about.label}: {1e3 * (groups[0].fixed_seconds or 0):.2g} ms an update and {each}")
    return f"On one core here, {'; '.join(texts)}." if texts else ""


def _impossible(study: Study) -> list[str]:
    reasons = [
        f"{study.data[g.data].label}, {study.arms[g.arm]} at {g.gpus} GPUs: {g.reason}."
        for g in study.groups
        if isinstance(g, Impossible)
    ]
    return list(dict.fromkeys(reasons))


def _failed(rows: list[dict[str, Any]]) -> list[str]:
    """Runs that failed for a reason other than divergence, so that the report does not hide their absence."""
    expected = ("same", "better", "worse", "diverged", "impossible", "unknown")
    return [f"{row['run']}: {row['outcome']}, {row['reason']}" for row in rows if row["outcome"] not in expected]


def _flat(group: Group | Impossible, columns: tuple[str, ...]) -> dict[str, Any]:
    """The columns of a group; an interval becomes two."""
    line = {}
    for column in columns:
        value = getattr(group, column, None)
        if column.endswith("_interval"):
            line[f"{column}_low"], line[f"{column}_high"] = value or (None, None)
        else:
            line[column] = value
    return line
