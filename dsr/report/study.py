"""A study's report: one HTML page that stands alone, its pictures, and the CSV behind each of them."""

from __future__ import annotations

import base64
import string
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr import __version__
from dsr.files import whole_file, write_csv
from dsr.report import study_figures as plots
from dsr.report import study_words as words
from dsr.study.ablation import SEQUENTIAL
from dsr.study.progress import duration
from dsr.study.study import Comparison, Group, Impossible, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    `study` is what study.json holds, `rows` what cells.csv does, and `curves` a line for each validation.
    """
    report = folder / "report"
    report.mkdir(exist_ok=True)
    for name, columns in TABLES.items():
        write_csv(report / f"{name}.csv", [_flat(group, (*GROUP, *columns)) for group in study.groups])
    speeds = speed_ups(study)
    write_csv(report / "curves.csv", curves)
    write_csv(report / "speedup.csv", speeds)
    template = string.Template(Path(__file__).with_name("study.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(study.title), body="\n".join(_body(report, study, rows, curves, speeds)), version=__version__
    )
    with whole_file(report / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return report / "index.html"


def speed_ups(study: Study) -> list[dict[str, Any]]:
    """Samples per second on N GPUs relative to one: predicted for every cell, measured where ranks were real.

    A proof's two runs do the same work on N ranks and on one device, so their times' ratio is the speed-up; it counts
    where every rank had a core of its own.
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


def _body(
    report: Path,
    study: Study,
    rows: list[dict[str, Any]],
    curves: list[dict[str, Any]],
    speeds: list[dict[str, Any]],
) -> list[str]:
    first = next(iter(study.data))
    timed = next((proof.data for proof in study.proofs), first)
    return [
        _header(study),
        "<section><h2>What more GPUs do to the result</h2>",
        _answer(study),
        _kept(study),
        "</section><section><h2>At a glance</h2>",
        *(_verdicts(study, data) for data in study.data),
        _key(study),
        "</section><section><h2>What the words mean</h2>",
        _list(words.definitions(study)),
        "</section><section><h2>Skill against GPUs</h2>",
        *(
            _picture(
                report / f"skill-{data}.svg",
                plots.skill(study, data),
                f"{about.label}: test skill of the runs that converged, mean and interval over the seeds. Black: "
                "the sequential runs' mean; grey: where a single run counts as the same. Long bars leave the picture.",
                "skill.csv",
            )
            for data, about in study.data.items()
        ),
        _picture(
            report / "share.svg",
            plots.share(study),
            "How much skill is lost by the share of the training set that one update takes, for data sets of different "
            "size. The same share of a larger set leaves more updates in an epoch.",
            "skill.csv",
        ),
        "</section><section><h2>Learning curves</h2>",
        _picture(
            report / "curves.svg",
            plots.curves(study, curves),
            "Skill on validation data at the largest GPU count. Left against the samples really seen, right against "
            "updates. Lines are medians of the seeds, bands span them, as long as all of them run; below the dashed "
            "line interpolation is better. Strong scaling lies on the sequential curve wherever it is possible.",
            "curves.csv",
        ),
        "</section><section><h2>Gradient noise scale</h2>",
        _picture(
            report / "noise.svg",
            plots.noise(study),
            "The noise scale B = tr(covariance) / |gradient|² (arXiv:1812.06162) of each run's last updates, median of "
            "the seeds where it is known, against the effective batch. Above the dashed line, where it is larger than "
            "the batch, a larger batch still averages out noise; below, it hardly does. As no sample comes twice in an "
            "epoch, values near the size of the training set or above it only say that noise is nearly all there is.",
            "noise.csv",
        )
        or "<p>No run logged a noise scale (it needs two slots or more in an update).</p>",
        "</section><section><h2>Time to the target</h2>",
        _picture(
            report / "target.svg",
            plots.target(study),
            "Predicted, not measured: updates to the target (median of the seeds that reached it) x the predicted time "
            f"of an update on N GPUs: slots / N x the time of a slot and what an update takes beside its slots, both "
            f"measured here, and {_wires(study)}. {_slots(study)} A cross at the top means that no more than half "
            "of the seeds reached the target.",
            "target.csv",
        )
        or "<p>In no cell more than half of the runs reached the target.</p>",
        _auto(study),
        "</section><section><h2>Speed-up and efficiency</h2>",
        _picture(
            report / "speedup.svg",
            plots.speedup(study, [line for line in speeds if line["data"] == timed]),
            f"{study.data[timed].label}. Samples per second relative to one GPU. Lines are predicted as "
            f"in the section above; framed markers are measured, with a core of its own for each of at most "
            f"{study.cores} real ranks that exchange through shared memory. {_held(speeds, timed)}",
            "speedup.csv",
        )
        or "<p>Nothing was timed.</p>",
        "</section><section><h2>How the rates were tuned</h2>",
        "<p>Scores are RMSE on the validation split in units of the residual's standard deviation: the lower the "
        "better. The test split took no part.</p>",
        _list(words.tuning(study)),
        "</section><section><h2>What was run once, and what proves it</h2>",
        _list(words.shared(study)),
        _impossible(study),
        "</section>",
        *_failed(rows),
        '<section><h2>All runs</h2><p>Every run is a line of <a href="../cells.csv">cells.csv</a>; definitions, '
        'intervals and proofs are in <a href="../study.json">study.json</a>. <code>tensorboard --logdir</code> on the '
        "study's folder compares the runs.</p></section>",
    ]


def _answer(study: Study) -> str:
    parts = (f"<p><strong>{escape(about)}</strong>: {escape(text)}</p>" for about, text in words.answer(study))
    return f'<div class="verdict">{"".join(parts)}</div>'


def _kept(study: Study) -> str:
    """The share of one GPU's skill that the best weak arm keeps: data sets and budgets against GPU counts."""
    shares = {
        (about.label, title): {gpus: (group, words.kept(group, about)) for gpus, group in best.items()}
        for data, about in study.data.items()
        for budget, title in plots.BUDGETS.items()
        if about.sequential_skill and (best := words.best_weak(study, data, budget))
    }
    if not shares:
        return ""
    counts = sorted({gpus for row in shares.values() for gpus in row})
    lines = []
    for (label, title), row in shares.items():
        cells = ""
        for gpus in counts:
            group, text = row.get(gpus, (None, ""))
            arm = f"<br><small>{escape(study.arms[group.arm])}</small>" if group else ""
            cells += f"<td>{escape(text)}{arm}</td>"
        lines.append(f"<tr><th>{escape(label)}, {title}</th>{cells}</tr>")
    head = "".join(f"<th>{count} GPUs</th>" for count in counts)
    return (
        "<table><caption>Weak scaling: what the best arm keeps of one GPU's skill (chosen by hindsight, which the "
        "intervals do not count)</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _header(study: Study) -> str:
    seeds = max((group.runs for group in study.groups), default=0)
    facts = f"{study.runs} runs, {seeds} seeds, {duration(study.run_seconds)} of one core · {study.file}"
    return f'<header><p class="kind">Scaling study</p><h1>{escape(study.title)}</h1><p>{escape(facts)}</p></header>'


def _verdicts(study: Study, data: str) -> str:
    """Arms against GPU counts, for each budget: mean skill and what it means against one GPU."""
    about, tables = study.data[data], []
    groups = [g for g in study.groups if g.data == data and g.arm != SEQUENTIAL]
    for budget, title in plots.BUDGETS.items():
        of_budget = [g for g in groups if g.budget == budget]
        if not of_budget:
            continue
        counts = sorted({g.gpus for g in of_budget})
        head = "".join(f"<th>{count}</th>" for count in counts)
        lines = []
        for arm in dict.fromkeys(g.arm for g in of_budget):
            by_count = {g.gpus: g for g in of_budget if g.arm == arm}
            cells = "".join(_verdict(by_count.get(count)) for count in counts)
            lines.append(f"<tr><th>{escape(study.arms[arm])}</th>{cells}</tr>")
        mean = sum(about.sequential_skill) / len(about.sequential_skill) if about.sequential_skill else None
        beside = "" if mean is None else f"; one GPU: {mean:.3f}"
        caption = f"{about.label}, {title}: skill by GPUs{beside}"
        tables.append(
            f"<table class=glance><caption>{escape(caption)}</caption><thead><tr><th>GPUs</th>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>"
        )
    return "".join(tables)


def _verdict(group: Group | Impossible | None) -> str:
    if group is None:
        return "<td></td>"
    return f'<td class="{words.verdict(group)}">{escape(words.entry(group))}</td>'


def _key(study: Study) -> str:
    parts = (f'<span class="{kind}">{symbol}</span> {escape(text)}' for kind, (symbol, text) in words.SYMBOLS.items())
    compared = [g for g in study.possible if g.difference_interval and not g.identical]
    chance = f" Of {len(compared)} comparisons some {(1 - study.definitions.level) * len(compared):.0f} would show "
    return f'<p class="key">{"; ".join(parts)}. Empty: not part of this study.{chance}a difference by chance alone.</p>'


def _auto(study: Study) -> str:
    """What auto chose and took for each data set, against the grid's best cells."""
    lines = []
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
        first, *others = map(escape, cells)
        lines.append(f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>")
    if not lines:
        return ""
    names = ("", "batch on GPUs (seeds)", "samples", "grid's best", "ratio", "time (s)", "grid's best", "ratio")
    head = "".join(f"<th>{name}</th>" for name in (*names, "the probe before"))
    return (
        "</section><section><h2>Mode auto against the grid's best cell</h2>"
        f"<table><caption>To the target</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        '<p class="key">Medians over the seeds. The grid are the cells whose seeds all reached the target; the '
        "best is chosen by hindsight, for samples and for time apart; in brackets the range over the seeds. Times "
        "are predicted, without the probe.</p>"
    )


def _wires(study: Study) -> str:
    wires = study.wires
    return f"the exchange of gradients over a network of {wires.latency_us:g} µs and {wires.gbit_per_s:g} Gbit/s"


def _ratio(compared: Comparison) -> str:
    """The medians' ratio, and where the single seeds lie: "1.05 (0.76 to 1.33)"."""
    seeds = compared.ratios_by_seed
    return "" if compared.ratio is None else f"{compared.ratio:.2f} ({min(seeds):.2f} to {max(seeds):.2f})"


def _held(speeds: list[dict[str, Any]], data: str) -> str:
    """How the measured speed-ups compare with the predicted ones."""
    predicted = {(s["arm"], s["gpus"]): s["speed_up"] for s in speeds if s["data"] == data and s["how"] == "predicted"}
    parts = [
        f"{s['arm']} on {s['gpus']}: {s['speed_up']:.2f} measured, {predicted[s['arm'], s['gpus']]:.2f} predicted"
        for s in speeds
        if s["how"] == "measured" and (s["arm"], s["gpus"]) in predicted
    ]
    return f"{'; '.join(parts)}." if parts else ""


def _slots(study: Study) -> str:
    """What a slot of each micro-batch takes here: arms with other micro-batches differ in time for that alone."""
    texts = []
    for data, about in study.data.items():
        groups = [g for g in study.possible if g.data == data and g.slot_seconds]
        times = {g.micro_batch: 1e3 * (g.slot_seconds or 0) for g in groups}
        if groups:
            each = ", ".join(f"{times[size]:.2g} ms for a slot of {size}" for size in sorted(times))
            texts.append(f"{about.label}: {1e3 * (groups[0].fixed_seconds or 0):.2g} ms an update and {each}")
    return f"On one core here, {'; '.join(texts)}." if texts else ""


def _impossible(study: Study) -> str:
    reasons = [
        f"{study.data[g.data].label}, {study.arms[g.arm]} at {g.gpus} GPUs: {g.reason}."
        for g in study.groups
        if isinstance(g, Impossible)
    ]
    return f"<h3>What is impossible</h3>{_list(dict.fromkeys(reasons))}" if reasons else ""


def _failed(rows: list[dict[str, Any]]) -> list[str]:
    """Runs that failed for another reason than divergence: the report must not hide that they are missing."""
    failed = [
        row for row in rows if row["outcome"] not in ("same", "better", "worse", "diverged", "impossible", "unknown")
    ]
    if not failed:
        return []
    lines = [f"{row['run']}: {row['outcome']}, {row['reason']}" for row in failed]
    return [f"<section><h2>Runs that failed for another reason than divergence</h2>{_list(lines)}</section>"]


def _list(lines: Any) -> str:
    return '<ul class="notes">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _picture(file: Path, drawn: Figure | None, caption: str, table: str) -> str:
    """The picture inside the page and, for talks and papers, as a file; nothing where there is nothing to draw."""
    if drawn is None:
        file.unlink(missing_ok=True)
        return ""
    with whole_file(file) as temporary:
        drawn.savefig(temporary, format="svg", metadata={"Date": None})
        data = base64.b64encode(temporary.read_bytes()).decode()
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}">'
        f'<figcaption>{text} <a href="{table}">{table}</a> <a href="{file.name}">{file.name}</a></figcaption></figure>'
    )


def _flat(group: Group | Impossible, columns: tuple[str, ...]) -> dict[str, Any]:
    """The columns of a group, an interval as two."""
    line = {}
    for column in columns:
        value = getattr(group, column, None)
        if column.endswith("_interval"):
            line[f"{column}_low"], line[f"{column}_high"] = value or (None, None)
        else:
            line[column] = value
    return line
