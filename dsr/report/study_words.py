"""A study in words: the answer for a forecaster, what each cell shows, and what was not studied."""

from __future__ import annotations

from collections import Counter

from dsr.study.study import AutoRun, DataSummary, Group, Impossible, Study


def answer(study: Study) -> list[tuple[str, str]]:
    """The answer as (topic, what the data show)."""
    parts = [
        ("One GPU", _sequential(study)),
        ("Sharing the batch (strong scaling)", _strong(study)),
        ("Letting the batch grow with the GPUs (weak scaling), at equal epochs", _kept(study, "epochs")),
        ("Weak scaling at equal updates, so N times the computation", _kept(study, "updates")),
        ("Runs that did not converge", _failures(study)),
        ("Letting a probe choose batch and GPUs (--mode auto)", _auto(study)),
        ("What this does not show", _limits(study)),
    ]
    return [(about, text) for about, text in parts if text]


def best_weak(study: Study, data: str, budget: str) -> dict[int, Group | None]:
    """By GPU count, the weak arm with the most skill, chosen in hindsight; None if every arm has runs that diverge."""
    groups = [g for g in study.possible if (g.data, g.budget, g.mode) == (data, budget, "weak") and g.gpus > 1]
    best: dict[int, Group | None] = {}
    for gpus in sorted({g.gpus for g in groups}):
        whole = [(g.skill, g) for g in groups if g.gpus == gpus and g.skill is not None and not g.diverged]
        best[gpus] = max(whole, key=lambda pair: pair[0], default=(None, None))[1]
    return best


def kept(group: Group | None, about: DataSummary) -> str:
    """The share of one GPU's skill that a cell keeps, with its interval over the seeds: "83 % (77 to 89)"."""
    if group is None or group.skill is None:
        return "runs fail in every arm"
    share = f"{100 * group.skill / _sequential_mean(about):.0f} %"
    if group.difference_interval is None:
        return f"{share} (too few seeds)"
    low, high = (100 * (1 + end / _sequential_mean(about)) for end in group.difference_interval)
    return f"{share} ({low:.0f} to {high:.0f})"


def verdict(group: Group | Impossible) -> str:
    """What the seeds of one cell show relative to the sequential run: a CSS class, and a key of SYMBOLS."""
    if isinstance(group, Impossible):
        return "impossible"
    if group.diverged:
        return "diverged"
    if group.skill is None:
        return "failed"
    if group.identical:
        return "identical"
    if group.difference_interval is None:
        return "unknown"
    low, high = group.difference_interval
    return "worse" if high < 0 else "better" if low > 0 else "same"


SYMBOLS = {
    "identical": ("≡", "the same weights, bit for bit"),
    "same": ("=", "no difference that these seeds can show"),
    "worse": ("▼", "worse than the sequential run: the interval of the difference is below zero"),
    "better": ("▲", "better than the sequential run: the interval of the difference is above zero"),
    "diverged": ("✗", "this many of the runs did not converge; the skill is that of the others"),
    "impossible": ("–", "impossible"),
    "failed": ("?", "failed for another reason: see cells.csv"),
    "unknown": ("·", "too few seeds to compare"),
}


def entry(group: Group | Impossible) -> str:
    """A cell of the table of verdicts: "0.451 ▼", "0.30 ✗ 2/5"."""
    kind = verdict(group)
    symbol = SYMBOLS[kind][0]
    if isinstance(group, Impossible):
        return symbol
    skill = "" if group.skill is None else f"{group.skill:.3f} "
    count = f" {group.diverged}/{group.runs}" if kind == "diverged" else ""
    return f"{skill}{symbol}{count}"


def definitions(study: Study) -> list[str]:
    """The definitions, as fixed in the ablation file before any run."""
    level = f"{100 * study.definitions.level:g} %"
    where = {
        "prediction": "prediction interval for one more sequential run",
        "confidence": "confidence interval for the mean of the sequential runs",
    }[study.definitions.same]
    return [
        "Skill is 1 - RMSE / RMSE of bicubic interpolation on the test split, of the network that was best on the "
        "validation split: 0 is interpolation, 1 is perfect. With several variables it is the mean over them.",
        "Diverged: a loss, gradient or field was not a finite number, or the last network of the run is worse than "
        f"{_floor(study)} on validation data, or its best network is worse on test data.",
        f"A single run is the same if its skill is within the {level} {where}; below, it is worse; above, it is "
        "better. A cell with several seeds is compared by the interval of the difference of the means (Welch). "
        f"Bars are {level} intervals of the mean (Student's t); shares of failures have {level} Wilson intervals.",
        "Equal epochs: in weak scaling, N GPUs see as many samples as the sequential run, except for incomplete "
        "batches at the end of an epoch, in 1/N of its updates; auto sees as many as its probe chose. Equal updates: N "
        "GPUs make the same number of updates, and see N times the samples. samples_seen in cells.csv is the actual "
        "number.",
        f"The time to target refers to {100 * study.definitions.target:g} % of the sequential runs' best skill "
        "on validation data.",
    ]


def chosen(runs: list[AutoRun]) -> str:
    """What the probes chose, as batch on GPUs (seeds): "16 on 16 (4), 32 on 32 (1)"."""
    counts = Counter((run.effective_batch, run.gpus) for run in runs)
    parts = [f"{batch} on {gpus} ({seeds})" for (batch, gpus), seeds in counts.most_common()]
    return ", ".join(parts)


def _floor(study: Study) -> str:
    below = study.definitions.diverged_below
    return "bicubic interpolation" if below == 0 else f"skill {below:g}"


def shared(study: Study) -> list[str]:
    """Which cells were not run because another is the same computation, and the proof."""
    lines = [
        "Strong scaling at any GPU count is the same computation as the sequential run, and every N-GPU run was "
        "rehearsed on one device, which processes the slots of all GPUs. Such cells were therefore run once."
    ]
    for proof in study.proofs:
        label = study.arms[proof.arm]
        what = f"{label}, {proof.gpus} GPUs, {proof.updates} updates of {study.data[proof.data].label}"
        if proof.same_bits is None:
            lines.append(f"{what}: the check did not run ({proof.reason or 'not run'}).")
        elif proof.same_bits:
            lines.append(
                f"{what}: {proof.ranks} real ranks and one device ended with the same weights "
                f"(SHA-256 {str(proof.weights_sha256[0])[:12]}…)."
            )
        else:
            lines.append(f"{what}: {proof.ranks} real ranks and one device ended with DIFFERENT weights.")
    if not study.proofs:
        lines.append("No real ranks were run in this study to verify it.")
    if len(study.sources) > 1:
        lines.append(
            f"The runs were made with {len(study.sources)} versions of the code of dsr (listed in study.json)."
        )
    return lines


def tuning(study: Study) -> list[str]:
    """What was tuned, how, and where the search ended at its edge."""
    if not study.tuning:
        return ["Nothing was tuned: the learning rate is that of the experiment. An untuned rate can hide any effect."]
    lines = []
    for tuned in study.tuning:
        scores = tuned.validation_scores
        where = f"{study.data[tuned.data].label}, {study.arms[tuned.arm]}"
        where += f", {tuned.gpus} GPUs, equal {tuned.budget}" if tuned.gpus > 1 else ""
        seeds = f"{len(tuned.seeds)} seed" + ("s" if len(tuned.seeds) > 1 else "")
        tried = ", ".join(f"{rate} ({_scores(values)})" for rate, values in scores.items())
        edge = (
            ". It is at the edge of the range that was tried: a better one may be outside" if tuned.at_the_edge else ""
        )
        if all(None in values for values in scores.values()):
            edge = ". Every rate diverged with some seed; the lowest was used"
        lines.append(f"{where}: {tuned.rate:g}, of {tried}; {seeds}{edge}.")
    return lines


def _scores(values: list[float | None]) -> str:
    return " / ".join("diverged" if value is None else f"{value:.4f}" for value in values)


def _sequential(study: Study) -> str:
    reached = [
        f"{_sequential_mean(about):.3f} for {about.label}{_unit(about)}"
        for about in study.data.values()
        if about.sequential_skill
    ]
    return f"skill {'; '.join(reached)}. Skill 1 is perfect, 0 is bicubic interpolation." if reached else ""


def _strong(study: Study) -> str:
    groups = [g for g in study.possible if g.mode == "strong" and g.gpus > 1]
    proofs = [p for p in study.proofs if p.same_bits is not None and p.arm in {g.arm for g in groups}]
    if wrong := [p for p in proofs if not p.same_bits]:
        return f"it did NOT preserve the bits on {wrong[0].gpus} real ranks."
    same = {data: [g.gpus for g in groups if g.data == data and g.identical] for data in study.data}
    most = {data: max(counts) for data, counts in same.items() if counts}
    if not most or not all(g.identical for g in groups):
        return "it is not the same computation as one GPU here: see the tables." if groups else ""
    real = max((p.ranks for p in proofs), default=0)
    how = f"checked on up to {real} real ranks" if real else "by construction; not checked on real ranks here"
    widest = max(most.values())
    fewer = ", ".join(f"{study.data[data].label}: {count}" for data, count in most.items() if count < widest)
    up_to = f"{widest} GPUs" + (f" ({fewer})" if fewer else "")
    return f"it loses nothing. Up to {up_to}, the network is identical to that of one GPU, bit for bit ({how})."


def _kept(study: Study, budget: str) -> str:
    """For each data set, what the best weak arm keeps at the largest GPU count."""
    texts = []
    for data, about in study.data.items():
        best = best_weak(study, data, budget)
        if best and about.sequential_skill:
            most = max(best)
            texts.append(f"{about.label}, {most} GPUs: {kept(best[most], about)}")
    if not texts:
        return ""
    level = f"{100 * study.definitions.level:g} %"
    return f"the best arm (chosen in hindsight) keeps, of one GPU's skill ({level} interval): {'; '.join(texts)}."


def _sequential_mean(about: DataSummary) -> float:
    """The mean skill of the sequential runs."""
    return sum(about.sequential_skill) / len(about.sequential_skill)


def _failures(study: Study) -> str:
    """How many weak runs did not converge, over the whole study, and in how many cells most did not."""
    sentences = []
    for budget, failures in study.failures.items():
        if failures.runs:
            worse = failures.diverged - failures.not_finite
            sentences.append(
                f"{failures.diverged} of {failures.runs} weak runs at equal {budget} ({failures.not_finite} were not "
                f"finite, {worse} ended worse than {_floor(study)})"
            )
    if not sentences:
        return ""
    weak = [g for g in study.possible if g.mode == "weak" and g.gpus > 1]
    often = sum(2 * g.diverged > g.runs for g in weak)
    return f"{', and '.join(sentences)}. In {often} of {len(weak)} weak cells more than half of the runs fail."


def _auto(study: Study) -> str:
    """Samples and predicted time to the target relative to the best cell of the grid, by data set."""
    texts = []
    for auto in study.auto:
        label = study.data[auto.data].label
        if auto.samples.ratio is None:
            texts.append(f"{label}: no comparison, since not every seed reached the target")
            continue
        shares = f"{auto.samples.ratio:.2f} times the samples"
        if auto.seconds.ratio is not None:
            shares += f" and {auto.seconds.ratio:.2f} times the time"
        texts.append(f"{label}, at most {auto.gpus} GPUs: {shares}")
    if not texts:
        return ""
    return (
        "to reach the target it needed, relative to the best cells of the grid (chosen in hindsight, separately for "
        "samples and predicted time; without its probe): "
        f"{'; '.join(texts)}."
    )


def _limits(study: Study) -> str:
    seeds = max((g.runs for g in study.groups), default=0)
    tuned = "was tuned on validation data first" if study.tuning else "was not tuned"
    tuned_arms = {rate.arm for rate in study.tuning if rate.gpus > 1}
    weak_rate = "it was tuned again at every batch in the arm that says so" if tuned_arms else "it was not tuned again"
    equal_updates = {g.arm for g in study.groups if g.budget == "updates"}
    weak = {g.arm for g in study.groups if g.mode == "weak"}
    extra = (
        f" Equal updates were tried with {len(equal_updates & weak)} of {len(weak)} weak arms." if equal_updates else ""
    )
    return (
        f"anything beyond one network, {seeds} seeds and these data. The sequential learning rate {tuned}; "
        f"with more GPUs {weak_rate}, and nothing else was.{extra} Times on many GPUs are predicted, not measured."
    )


def _unit(about: DataSummary) -> str:
    """The RMSE of the sequential run and of bicubic interpolation, if there is one variable."""
    if not about.bicubic or not about.sequential_rmse or not about.units or len(about.sequential_rmse) != 1:
        return ""
    ((name, rmse),) = about.sequential_rmse.items()
    unit = about.units[name]
    return f" (RMSE {rmse:.3f} {unit}, interpolation {about.bicubic[name]:.3f} {unit})"
