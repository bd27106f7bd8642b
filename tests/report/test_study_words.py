"""The answer in plain words: a loss is named with what the seeds allow, at the most GPUs."""

import pytest

from dsr.report import study_words as words
from dsr.study.ablation import Definitions
from dsr.study.study import AutoSummary, Comparison, DataSummary, Failures, Group, Proof, Study

DATA = DataSummary.model_construct(label="A", sequential_skill=[0.5, 0.5], training_samples=80, bicubic=None)


def group(skill, interval, **more):
    values = {"data": "a", "budget": "epochs", "mode": "weak", "arm": "none", "gpus": 8, "runs": 5, "diverged": 0}
    values |= {"identical": False, "skill": skill, "difference": skill - 0.5, "difference_interval": interval}
    return Group.model_construct(**(values | more))


def answer(*groups, **more):
    values = {"data": {"a": DATA}, "arms": {"none": "weak, rate kept"}, "definitions": Definitions(target=0.9)}
    values |= {"groups": list(groups), "proofs": [], "tuning": [], "auto": [], "failures": {}}
    return dict(words.answer(Study.model_construct(**(values | more))))


def said(*groups):
    return answer(*groups)["Letting the batch grow with the GPUs (weak scaling), at equal epochs"]


@pytest.mark.parametrize(
    ("skill", "interval", "expected"),
    [
        (0.3, (-0.25, -0.15), "60 % (50 to 70)"),
        (0.6, (0.05, 0.15), "120 % (110 to 130)"),
        (0.2, (-0.7, 0.1), "40 % (-40 to 120)"),
        (0.4, None, "80 % (too few seeds)"),
    ],
)
def test_what_is_kept_is_named_with_what_the_seeds_allow(skill, interval, expected):
    assert said(group(skill, interval)).endswith(f"of one GPU's skill (95 % interval): A, 8 GPUs: {expected}.")


def test_an_arm_with_failing_runs_is_not_the_best():
    better = group(0.49, (-0.02, 0.01), diverged=1)
    assert "8 GPUs: 60 %" in said(better, group(0.3, (-0.25, -0.15)))
    assert "8 GPUs: runs fail in every arm" in said(better)


def test_the_answer_is_for_the_most_gpus():
    assert "A, 32 GPUs: 50 %" in said(group(0.5, (-0.1, 0.1)), group(0.25, (-0.3, -0.2), gpus=32))


def strong(gpus, identical=True):
    return group(0.5, (0, 0), mode="strong", arm="strong", gpus=gpus, identical=identical)


def proof(arm, same_bits):
    return Proof.model_construct(arm=arm, gpus=2, ranks=2, same_bits=same_bits)


def test_strong_scaling_loses_nothing_only_where_its_weights_are_the_sequential_ones():
    about = "Sharing the batch (strong scaling)"
    text = answer(strong(2), strong(16), proofs=[proof("strong", True), proof("none", False)])[about]
    assert text.startswith("it loses nothing. Up to 16 GPUs") and "checked on up to 2 real ranks" in text
    assert "did NOT preserve the bits on 2" in answer(strong(2), proofs=[proof("strong", False)])[about]
    assert "not the same computation" in answer(strong(2), strong(4, identical=False))[about]


def test_failures_are_counted_by_their_kind():
    failures = {"epochs": Failures(runs=9, diverged=4, not_finite=3)}
    text = answer(group(0.1, (0, 0), diverged=3), failures=failures)["Runs that did not converge"]
    assert text == (
        "4 of 9 weak runs at equal epochs (3 were not finite, 1 ended worse than bicubic interpolation). "
        "In 1 of 1 weak cells more than half of the runs fail."
    )


def test_auto_is_compared_only_where_it_reached_the_target():
    about = "Letting a probe choose batch and GPUs (--mode auto)"
    less, same, none = (Comparison.model_construct(ratio=ratio) for ratio in (0.5, 1.05, None))
    auto = AutoSummary.model_construct(data="a", gpus=8, samples=same, seconds=less)
    assert "A, at most 8 GPUs: 1.05 times the samples and 0.50 times the time" in answer(auto=[auto])[about]
    assert "no comparison" in answer(auto=[auto.model_copy(update={"samples": none})])[about]
