"""What a study says in plain words: the answer for a forecaster, what each cell shows, and what was not studied."""

from __future__ import annotations

from typing import Any

from dsr.study.statistics import wilson_interval

Group = dict[str, Any]


def answer(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The answer in one paragraph, as (what it is about, what the data say of it)."""
    parts = [
        ("Sharing the batch (strong scaling)", _strong(result)),
        ("Letting the batch grow with the GPUs (weak scaling)", _kept(result, "epochs")),
        ("Weak scaling with as many updates as one GPU, so N times the computation", _kept(result, "updates")),
        ("Runs that did not converge", _failures(result)),
        ("Letting a probe choose batch and GPUs (--mode auto)", _auto(result)),
        ("What this does not show", _limits(result)),
    ]
    return [(about, text) for about, text in parts if text]


def details(result: dict[str, Any]) -> list[str]:
    """For each data set: what one GPU reaches, and the arms at the most GPUs."""
    return [text for name in result["data"] if (text := _weak(result, name))]


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


def auto(result: dict[str, Any]) -> list[str]:
    """For each data set: what the probes saw and chose, and what the runs took against the grid's best cells."""
    lines = []
    for found in result["auto"]:
        runs, label = found["runs"], result["data"][found["data"]]["label"]
        chosen = "; ".join(
            f"seed {run['seed']}: a batch of {run['effective_batch']} on {run['gpus']} GPUs"
            + ("" if run["noise_scale"] is None else f" (noise scale {run['noise_scale']:.0f})")
            for run in runs
        )
        lines.append(f"{label}, at most {found['gpus']} GPUs. {chosen or 'No run ended.'}")
        for what, unit in (("samples", "samples"), ("seconds", "s")):
            own, best = found[what]["auto"], found[what]["best_cell"]
            if own is None or best is None:
                lines.append(f"{label}: not every seed of auto, or no whole cell of the grid, reached the target.")
                break
            cell = f"{result['arms'][best['arm']]} at {best['gpus']} GPUs, equal {best['budget']}"
            lines.append(
                f"{label}: {own:.4g} {unit} to the target, {found[what]['ratio']:.2f} of the best cell's "
                f"{found[what]['best']:.4g} ({cell})."
            )
        if runs:
            lines.append(
                f"{label}: each probe took {runs[0]['probe_updates']} updates, {runs[0]['probe_samples']} samples, "
                "before the run; they are not part of these numbers."
            )
    return lines


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
        return ""
    proofs = [p for p in result["proofs"] if p["same_bits"] is not None and result["proofs"]]
    most = max(g["gpus"] for g in groups)
    wrong = [p for p in proofs if not p["same_bits"]]
    if wrong:
        return f"it did NOT keep the bits on {wrong[0]['gpus']} real ranks."
    real = max((p["ranks"] for p in proofs if p["arm"] in {g["arm"] for g in groups}), default=0)
    how = f"checked on up to {real} real ranks" if real else "by its arithmetic; not checked on real ranks here"
    return f"it loses nothing. Up to {most} GPUs the network is the one that a single GPU trains, bit for bit ({how})."


def _kept(result: dict[str, Any], budget: str) -> str:
    """For each data set what the best weak arm, picked by hindsight, loses at how many GPUs."""
    texts = []
    for data, about in result["data"].items():
        groups = [g for g in _weak_groups(result, data, budget) if g["gpus"] > 1]
        if not groups or not about["sequential_skill"]:
            continue
        one = sum(about["sequential_skill"]) / len(about["sequential_skill"])
        parts: dict[str, list[int]] = {}
        for gpus in sorted({g["gpus"] for g in groups}):
            own = [g for g in groups if g["gpus"] == gpus]
            parts.setdefault(_loss(own, one, result["definitions"]["target"]), []).append(gpus)
        found = "; ".join(f"{loss} at {_listed(counts)} GPUs" for loss, counts in parts.items())
        texts.append(f"{about['label']}: {found}.")
    return f"what the best arm, picked by hindsight, loses of one GPU's skill. {' '.join(texts)}" if texts else ""


def _loss(groups: list[Group], one: float, kept: float) -> str:
    """What the best arm of one GPU count loses of one GPU's skill, and how sure that is.

    A loss is small, and said to be, only where its whole interval is: `kept` is the share of the skill that counts as
    reached. Two means whose interval holds zero may still lie far apart.
    """
    whole = [g for g in groups if g["skill"] is not None and not g["diverged"]]
    if not whole:
        return "in every arm some runs fail"
    best = max(whole, key=lambda g: g["skill"])
    lost = f"{max(one - best['skill'], 0):.3f} of {one:.3f}"
    if verdict(best) == "worse":
        return lost
    if verdict(best) == "unknown":
        return f"{lost} (too few seeds to compare)"
    if verdict(best) == "identical":
        return "nothing"
    if verdict(best) == "better":
        return f"nothing (it gains {best['difference']:.3f})"
    low, high = best["difference_interval"]
    if -low <= (1 - kept) * one:
        return f"less than {100 * (1 - kept):g} %"
    return f"{lost}, not proven (the seeds allow {max(-high, 0):.3f} to {-low:.3f})"


def _weak_groups(result: dict[str, Any], data: str, budget: str) -> list[Group]:
    groups = [g for g in result["groups"] if g["data"] == data and g["budget"] == budget and g["mode"] == "weak"]
    return [g for g in groups if "reason" not in g]


def _listed(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


def _weak(result: dict[str, Any], data: str) -> str | None:
    """Of one data set: the weak cells with the most GPUs, at equal epochs, and with equal updates where there are."""
    about = result["data"][data]
    wide = [g for g in _weak_groups(result, data, "epochs") if g["gpus"] > 1]
    longer = [g for g in _weak_groups(result, data, "updates") if g["gpus"] > 1]
    if not wide or not about["sequential_skill"]:
        return None
    base = sum(about["sequential_skill"]) / len(about["sequential_skill"])
    text = (
        f"{about['label']} ({about['training_samples']} training fields, {about['effective_batch']} in an update): one "
        f"GPU reaches skill {base:.3f}{_unit(about)}."
    )
    for groups, how in ((wide, "the same number of epochs"), (longer, "the same number of updates")):
        if groups:
            most = max(g["gpus"] for g in groups)
            widest = [g for g in groups if g["gpus"] == most]
            text += f" {most} GPUs, {widest[0]['effective_batch']} fields in an update, {how}: "
            text += _best_and_worst(widest, result)
    return text


def _best_and_worst(groups: list[Group], result: dict[str, Any]) -> str:
    """The best arm that always converged, how many others are worse, and how many have runs that diverged."""
    whole = [g for g in groups if not g["diverged"] and g["skill"] is not None]
    failing = [g for g in groups if g["diverged"]]
    parts = []
    if whole:
        best = max(whole, key=lambda g: g["skill"])
        label = result["arms"][best["arm"]]
        parts.append(f"the best of {len(groups)} arms ({label}) reaches {best['skill']:.3f}, {_against(best)}")
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
    span = f"(difference {low_high[0]:+.3f} to {low_high[1]:+.3f})"
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
    most = f"More than half fail only here: {where} GPUs." if often else "In no cell did more than half of them fail."
    return f"of all weak runs {', and '.join(sentences)}. {most}"


def _auto(result: dict[str, Any]) -> str:
    """Its samples and its predicted time to the target against the best cell of the grid, by data set."""
    texts = []
    for found in result["auto"]:
        label = result["data"][found["data"]]["label"]
        if found["samples"]["ratio"] is None:
            texts.append(f"{label}: no comparison, since not every seed reached the target")
            continue
        shares = f"{found['samples']['ratio']:.2f} times the samples"
        if found["seconds"]["ratio"] is not None:
            shares += f" and {found['seconds']['ratio']:.2f} times the predicted time"
        texts.append(f"{label}, at most {found['gpus']} GPUs: {shares}")
    if not texts:
        return ""
    return f"to the target, of the grid's best cells, picked by hindsight, it took: {'; '.join(texts)}."


def _limits(result: dict[str, Any]) -> str:
    seeds = max((g["runs"] for g in result["groups"]), default=0)
    tuned = "was tuned on validation data first" if result["tuning"] else "was not tuned"
    retuned = {found["arm"] for found in result["tuning"] if found["gpus"] > 1}
    again = f"it was tuned anew at every batch in {len(retuned)} arm(s)" if retuned else "it was not tuned anew"
    return (
        f"it is one network, {seeds} seeds, and these data. The sequential learning rate "
        f"{tuned}; with more GPUs {again}, and nothing else was. Times on many GPUs are predicted, not measured."
    )


def _unit(about: dict[str, Any]) -> str:
    """The sequential run's RMSE and bicubic's, where there is one variable."""
    if not about["bicubic"] or len(about["sequential_rmse"]) != 1:
        return ""
    (name, bicubic), unit = next(iter(about["bicubic"].items())), next(iter(about["units"].values()))
    return f" (RMSE {about['sequential_rmse'][name]:.3f} {unit}; interpolation {bicubic:.3f} {unit})"
