"""The report of a run: one HTML page that stands alone, and its pictures beside it."""

from __future__ import annotations

import base64
import string
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr import __version__
from dsr.config import read_json
from dsr.data.calendar import label
from dsr.files import whole_file
from dsr.report import evaluation_figures as plots
from dsr.report import evaluation_words as words
from dsr.run import Run
from dsr.run.lock import check_links
from dsr.verify.intervals import FEWEST_CASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(run: Path, result: dict[str, Any]) -> Path:
    """Write RUN/report/index.html, whole or not at all, and its pictures as PNG files; returns the page's path.

    `result` is what `evaluate` returned, whose example.npz lies in RUN/report; the training curve comes from
    metrics.jsonl and is left out where there is none.
    """
    folder = Run(run)
    check_links(folder.folder)
    folder.report.mkdir(exist_ok=True)
    with np.load(folder.example) as file:
        example = dict(file)
    plan = read_json(folder.plan) if folder.plan.exists() else {}
    page = _page(Path(run).resolve().name, result, example, folder.logged(), plan, folder.report)
    with whole_file(folder.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder.page


def _page(
    name: str,
    result: dict[str, Any],
    example: dict[str, Any],
    records: list[dict[str, Any]],
    plan: dict[str, Any],
    folder: Path,
) -> str:
    variables, labels = result["variables"], result["methods"]

    def picture(drawn: Figure | None, file: str, caption: str) -> str:
        """The picture inlined, and kept beside the page; nothing where there is nothing to draw."""
        return "" if drawn is None else _inline(drawn, folder / file, caption)

    sections = [
        _header(name, result, plan),
        "<section><h2>Who wins</h2>",
        *(f'<p class="verdict {_verdict(v)}">{_sentence(text)}</p>' for text, v in _pairs(result)),
        f'<p class="caution">{escape(words.caution(result))}</p>',
        picture(
            plots.skill(variables, labels),
            "skill.png",
            "RMSE of every method on the test data, divided by that of ridge regression. A diamond left of 1: the "
            "network beats ridge regression.",
        ),
        "</section>",
        f"<section><h2>One {escape(result['split'])} case</h2><p>{_case(example)}</p>",
    ]
    for index, (variable, found) in enumerate(variables.items()):
        fields = {m: example[m][index] for m in (*labels, "truth") if m in example}
        caption = (
            f"{found['long_name']}: above the fields on one colour scale, below their errors (method minus truth); "
            "red is too high, blue too low."
        )
        drawn = plots.maps(fields, example, f"{variable} ({found['units']})", labels)
        sections.append(picture(drawn, f"maps_{variable}.png", caption))
    sections.append("</section><section><h2>Skill</h2>")
    sections += [_table(result, variable) for variable in variables]
    sections.append(_notes(result))
    lead = plots.by_lead(variables, labels)
    sections.append(
        picture(
            lead,
            "leads.png",
            "RMSE by lead time; climatology is left out, and the ensemble mean, which is the same as bicubic.",
        )
    )
    sections.append("</section>")
    curve = picture(
        plots.training(records),
        "training.png",
        "Left: the loss that is minimised, in normalised units. Right: RMSE on the validation split relative to "
        "bicubic interpolation, from which the network starts (where the low-resolution data lack the variable, to "
        "the first validation); below the dashed line the network has learned something.",
    )
    if curve:
        sections.append(f"<section><h2>Training</h2>{curve}</section>")
    growth = folder / "error_growth.png"
    if growth.exists():
        text = (
            "How the simulated low-resolution forecasts go wrong: RMSE of the control and of the ensemble mean against "
            "the coarsened truth, the members' spread, and the error at which no skill is left."
        )
        sections.append(f"<section><h2>The built-in forecasts</h2>{_figure(growth, text)}</section>")
    spectra = picture(
        plots.spectra(variables, labels),
        "spectra.png",
        "Radially averaged power spectra (discrete cosine transform, mean over test fields). Below the truth: too "
        "smooth at that wavelength; above: too rough.",
    )
    if spectra:
        sections.append(f"<section><h2>Spectra</h2>{spectra}</section>")
    template = string.Template(Path(__file__).with_name("evaluation.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(f"dsr: {name}"), body="\n".join(sections), version=__version__)


def _header(name: str, result: dict[str, Any], plan: dict[str, Any]) -> str:
    facts = [f"{result['split']} split: {result['samples']} samples, {result['times']} valid times"]
    if plan:
        facts.append(
            f"trained {plan.get('mode')}, {plan.get('gpus')} GPU(s), effective batch {plan.get('effective_batch')}"
        )
        facts.append(f"{plan.get('updates')} updates on {plan.get('samples')} samples")
    line = escape(" · ".join(facts))
    return f'<header><p class="kind">Downscaling report</p><h1>{escape(name)}</h1><p>{line}</p></header>'


def _pairs(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(zip(words.headlines(result), result["variables"].values(), strict=True))


def _verdict(found: dict[str, Any]) -> str:
    if words.undecided(found):
        return "close"
    return "wins" if found["winner"] == "network" else "loses"


def _sentence(text: str) -> str:
    """The headline with the variable's name in bold."""
    variable, rest = text.split(": ", 1)
    return f"<strong>{escape(variable)}</strong>: {escape(rest)}"


def _case(example: dict[str, Any]) -> str:
    init, lead, calendar = int(example["init_time"]), int(example["lead_time"]), str(example["calendar"])
    valid, begin = (label(seconds, calendar).replace("T", " ") for seconds in (init + lead, init))
    begun = f", forecast of {begin} at +{lead / 3600:g} h" if lead else ""
    return f"Valid {valid} UTC{begun}. It is the case with the network's median error: neither its best nor its worst."


def _table(result: dict[str, Any], variable: str) -> str:
    found = result["variables"][variable]
    head = "".join(f"<th>{escape(column)}</th>" for column in ("method", *words.COLUMNS))
    lines = []
    for method, cells in words.rows(result, variable):
        kind = " ".join(k for k, yes in (("winner", method == found["winner"]), ("own", method == "network")) if yes)
        mark = " ★" if method == found["winner"] else ""
        cells_html = "".join(f"<td>{escape(cell) or '&ndash;'}</td>" for cell in cells)
        lines.append(f'<tr class="{kind}"><th>{escape(result["methods"][method])}{mark}</th>{cells_html}</tr>')
    title = f"{escape(found['long_name'])} <code>{escape(variable)}</code>, {escape(found['units'])}"
    return f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _notes(result: dict[str, Any]) -> str:
    interval = "the brackets hold its 95 % interval" if result["independent_blocks"] >= FEWEST_CASES else ""
    notes = [
        "★ lowest RMSE. Scores are pooled over all times and points, cells weighted by area, missing truth left out, "
        "in physical units. The anomaly correlation is of departures from climatology by hour; SSIM is the mean over "
        "up to 32 evenly spaced samples. The last column is the network's RMSE minus that method's, so below zero the "
        f"network is better{'; ' + interval if interval else ''}.",
        f"Ridge regression has {result['ridge']['predictors']} predictors, from all that the network sees, and its "
        "penalty is chosen on the validation split.",
        *(f"{name}: fitted lapse rate {1000 * rate:.1f} per km." for name, rate in result["lapse_rates"].items()),
        *(f"Not there: {words.LABELS[method]}: {reason}." for method, reason in result["omitted"].items()),
        *result["notes"],
    ]
    return '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _inline(drawn: Figure, file: Path, caption: str) -> str:
    """Draw a picture beside the page, and show it in the page."""
    with whole_file(file) as temporary:
        drawn.savefig(temporary, format="png", dpi=130)
    return _figure(file, caption)


def _figure(file: Path, caption: str) -> str:
    """A picture inside the page, so that the page stands alone."""
    data, text = base64.b64encode(file.read_bytes()).decode(), escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
