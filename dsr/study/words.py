"""What a study says in plain words: the answer for a forecaster, what each cell shows, and what was not studied."""

from __future__ import annotations

from typing import Any

from dsr.study.ablation import SEQUENTIAL
from dsr.study.statistics import wilson_interval

Group = dict[str, Any]


def answer(result: dict[str, Any]) -> list[str]:
    """The answer in a few sentences, first what holds for all data, then one for each data set."""
    return [
        _strong(result),
        *(text for name in result["data"] if (text := _weak(result, name))),
        _failures(result),
        _limits(result),
    ]


def verdict(group: Group) -> str:
    """What the seeds of one cell show against the sequential run: the table's class, and its symbol's meaning."""
    if "reason" in group:
        return "impossible"
    if group["diverged"]:
        return "diverged"
    if group["skill"] is None:
        return "failed"
    if group["identical"]:
        return "identical"
    if group["difference_interval"] is None:
        return "unknown"
    low, high = group["difference_interval"]
    return "worse" if high < 0 else "better" if low > 0 else "same"


SYMBOLS = {
    "identical": ("≡", "the same weights, bit for bit"),
    "same": ("=", "no difference that these seeds can show"),
    "worse": ("▼", "worse than the sequential run: the interval of the difference lies below zero"),
    "better": ("▲", "better than the sequential run: the interval of the difference lies above zero"),
    "diverged": ("✗", "so many of the runs did not converge; the skill is that of the others"),
    "impossible": ("–", "cannot be"),
    "failed": ("?", "failed for a reason of its own: see cells.csv"),
    "unknown": ("·", "too few seeds to compare"),
}


def entry(group: Group) -> str:
    """A cell of the table of verdicts: "0.451 ▼", "0.30 ✗ 2/5"."""
    kind = verdict(group)
    skill = "" if group.get("skill") is None else f"{group['skill']:.3f} "
    count = f" {group['diverged']}/{group['runs']}" if kind == "diverged" else ""
    return f"{skill}{SYMBOLS[kind][0]}{count}"


def definitions(result: dict[str, Any]) -> list[str]:
    """What the words mean, as the ablation file defined them before anything ran."""
    found = result["definitions"]
    level = f"{100 * found['level']:g} %"
    where = {
        "prediction": "where one more sequential run would lie (prediction interval)",
        "confidence": "where the mean of the sequential runs lies (confidence interval)",
    }[found["same"]]
    floor = "bicubic interpolation" if found["diverged_below"] == 0 else f"skill {found['diverged_below']:g}"
    return [
        "Skill is 1 - RMSE / RMSE of bicubic interpolation on the test split, of the network that was best on the "
        "validation split: 0 is interpolation, 1 is perfect. With several variables it is the mean over them.",
        f"Diverged: a loss, gradient or field was not a finite number, or the run's last network is worse than {floor} "
        "on validation data, or its best network is on test data.",
        f"A single run is the same if its skill lies in the {level} interval of {where}; below it is worse, above "
        "it better. A cell of several seeds is compared by the interval of the difference of the means (Welch). "
        f"Bars are {level} intervals of the mean (Student's t); shares of failures have {level} Wilson intervals.",
        "Equal epochs: every arm sees as many samples as the sequential run, so N GPUs in weak scaling make 1/N of its "
        "updates. Equal updates: it makes as many updates, and so sees N times the samples.",
        f"The target of the time to target is {100 * found['target']:g} % of the sequential runs' best skill on "
        "validation data.",
    ]


def shared(result: dict[str, Any]) -> list[str]:
    """Which cells were not run because another is the same computation, and what proves it."""
    lines = [
        "Strong scaling at any GPU count is the same computation as the sequential run, and every N-GPU run was "
        "rehearsed on one device, which plays all GPUs' slots. So such cells were run once."
    ]
    for proof in result["proofs"]:
        label = result["arms"][proof["arm"]]
        what = f"{label}, {proof['gpus']} GPUs, {proof['updates']} updates of {result['data'][proof['data']]['label']}"
        if proof["same_bits"] is None:
            lines.append(f"{what}: the check did not run ({proof['reason'] or 'not played'}).")
        elif proof["same_bits"]:
            lines.append(
                f"{what}: {proof['ranks']} real ranks and one device ended with the same weights "
                f"(SHA-256 {proof['weights_sha256'][0][:12]}…)."
            )
        else:
            lines.append(f"{what}: {proof['ranks']} real ranks and one device ended with DIFFERENT weights.")
    if not result["proofs"]:
        lines.append("No real ranks were run in this study to prove it.")
    return lines


def tuning(result: dict[str, Any]) -> list[str]:
    """What was tuned, how, and where the search ended at its edge."""
    if not result["tuning"]:
        return ["Nothing was tuned: the learning rate is the experiment's own. An untuned rate can hide everything."]
    lines = []
    for found in result["tuning"]:
        scores = found["validation_scores"]
        where = f"{result['data'][found['data']]['label']}, {result['arms'][found['arm']]}"
        where += f", {found['gpus']} GPUs, equal {found['budget']}" if found["gpus"] > 1 else ""
        seeds = f"{len(found['seeds'])} seed" + ("s" if len(found["seeds"]) > 1 else "")
        tried = ", ".join(f"{rate} ({_scores(values)})" for rate, values in scores.items())
        edge = ". It lies at the edge of what was tried: a better one may lie beyond" if found["at_the_edge"] else ""
        if all(None in values for values in scores.values()):
            edge = ". Every rate diverged; the lowest was taken"
        lines.append(f"{where}: {found['rate']:g}, of {tried}; {seeds}{edge}.")
    return lines


def _scores(values: list[float | None]) -> str:
    return " / ".join("diverged" if value is None else f"{value:.4f}" for value in values)


def _strong(result: dict[str, Any]) -> str:
    groups = [g for g in result["groups"] if g["mode"] == "strong" and "reason" not in g and g["gpus"] > 1]
    if not groups:
        return "Strong scaling was not part of this study."
    proofs = [p for p in result["proofs"] if p["same_bits"] is not None and result["proofs"]]
    most = max(g["gpus"] for g in groups)
    wrong = [p for p in proofs if not p["same_bits"]]
    if wrong:
        return (
            f"Sharing the batch (strong scaling) did NOT keep the bits: {wrong[0]['gpus']} real ranks ended elsewhere."
        )
    real = max((p["ranks"] for p in proofs if p["arm"] in {g["arm"] for g in groups}), default=0)
    how = f"checked on up to {real} real ranks" if real else "by its arithmetic; not checked on real ranks here"
    return (
        f"Sharing the batch among the GPUs (strong scaling) loses nothing: up to {most} GPUs the network is the one "
        f"that a single GPU trains, bit for bit ({how})."
    )


def _weak(result: dict[str, Any], data: str) -> str | None:
    """Of one data set: the widest weak cells at equal epochs, and with equal updates where there are some."""
    about, units = result["data"][data], _unit(result["data"][data])
    weak = [g for g in result["groups"] if g["data"] == data and g["mode"] == "weak" and "reason" not in g]
    wide = [g for g in weak if g["budget"] == "epochs" and g["gpus"] > 1]
    if not wide or not about["sequential_skill"]:
        return None
    most = max(g["gpus"] for g in wide)
    widest = [g for g in wide if g["gpus"] == most]
    base = sum(about["sequential_skill"]) / len(about["sequential_skill"])
    text = (
        f"{about['label']} ({about['training_samples']} training fields): one GPU reaches skill {base:.3f}{units}. "
        f"Growing the batch to {widest[0]['effective_batch']} fields on {most} GPUs (weak scaling), with the same "
        f"number of epochs: {_best_and_worst(widest, result)}"
    )
    longer = [g for g in weak if g["budget"] == "updates" and g["gpus"] > 1]
    if longer:
        most = max(g["gpus"] for g in longer)
        text += f" With as many updates as one GPU makes ({most} times its samples, {most} GPUs): "
        text += _best_and_worst([g for g in longer if g["gpus"] == most], result)
    return text


def _best_and_worst(groups: list[Group], result: dict[str, Any]) -> str:
    """The best arm that always converged, how many others are worse, and how many have runs that diverged."""
    whole = [g for g in groups if not g["diverged"] and g["skill"] is not None]
    failing = [g for g in groups if g["diverged"]]
    parts = []
    if whole:
        best = max(whole, key=lambda g: g["skill"])
        parts.append(f"the best of {len(groups)} arms ({result['arms'][best['arm']]}) reaches {best['skill']:.3f}, "
                     f"{_against(best)}")  # fmt: skip
        worse = sum(verdict(g) == "worse" for g in whole if g is not best)
        if worse:
            parts.append(f"{worse} other arm{'s are' if worse > 1 else ' is'} worse than one GPU")
    if failing:
        listed = ", ".join(f"{result['arms'][g['arm']]} {g['diverged']} of {g['runs']}" for g in failing)
        parts.append(f"runs that did not converge: {listed}")
    return "; ".join(parts) + "."


def _against(group: Group) -> str:
    kind, low_high = verdict(group), group["difference_interval"]
    if low_high is None:
        return "which too few seeds can compare"
    span = f"({low_high[0]:+.3f} to {low_high[1]:+.3f})"
    return {
        "worse": f"{-group['difference']:.3f} below one GPU {span}",
        "better": f"{group['difference']:.3f} above one GPU {span}",
    }.get(kind, f"which these seeds cannot tell from one GPU {span}")


def _failures(result: dict[str, Any]) -> str:
    """The share of weak runs that did not converge, over everything that the study tried."""
    level = result["definitions"]["level"]
    sentences = []
    for budget in ("epochs", "updates"):
        groups = [g for g in result["groups"] if g["mode"] == "weak" and g["gpus"] > 1 and g["budget"] == budget]
        groups = [g for g in groups if "reason" not in g]
        count, total = sum(g["diverged"] for g in groups), sum(g["runs"] for g in groups)
        if total:
            low, high = wilson_interval(count, total, level)
            sentences.append(f"{count} of {total} at equal {budget} ({100 * low:.0f} to {100 * high:.0f} %)")
    if not sentences:
        return ""
    often = [g for g in result["groups"] if "reason" not in g and 2 * g["diverged"] > g["runs"]]
    where = ", ".join(dict.fromkeys(f"{result['arms'][g['arm']]} at {g['gpus']}" for g in often))
    most = f"Most runs fail only here: {where} GPUs." if often else "In no cell did most of the runs fail."
    return f"Weak runs that did not converge, over all arms: {', and '.join(sentences)}. {most}"


def _limits(result: dict[str, Any]) -> str:
    seeds = max((g["runs"] for g in result["groups"]), default=0)
    tuned = "was tuned on validation data first" if result["tuning"] else "was not tuned"
    retuned = {found["arm"] for found in result["tuning"] if found["gpus"] > 1}
    again = f"it was tuned anew at every batch in {len(retuned)} arm(s)" if retuned else "it was not tuned anew"
    return (
        f"What this does not show: it is one network, {seeds} seeds, and these data. The sequential learning rate "
        f"{tuned}; with more GPUs {again}, and nothing else was. Times on many GPUs are predicted, not measured."
    )


def _unit(about: dict[str, Any]) -> str:
    """The sequential run's RMSE and bicubic's, where there is one variable."""
    if not about["bicubic"] or len(about["sequential_rmse"]) != 1:
        return ""
    (name, bicubic), unit = next(iter(about["bicubic"].items())), next(iter(about["units"].values()))
    return f" (RMSE {about['sequential_rmse'][name]:.3f} {unit}; interpolation {bicubic:.3f} {unit})"


def is_sequential(group: Group) -> bool:
    return group["arm"] == SEQUENTIAL
