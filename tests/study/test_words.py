"""The answer in plain words: a loss is named with what the seeds allow, at the most GPUs."""

import pytest

from dsr.study import words

SEQUENTIAL = {"label": "A", "sequential_skill": [0.5, 0.5], "training_samples": 80, "bicubic": None}


def group(skill, interval, **more):
    difference = None if skill is None else skill - 0.5
    return {
        **{"data": "a", "budget": "epochs", "mode": "weak", "arm": "none", "gpus": 8, "runs": 5, "diverged": 0},
        **{"identical": False, "skill": skill, "difference": difference, "difference_interval": interval},
        **more,
    }


def said(*groups):
    result = {
        "data": {"a": SEQUENTIAL},
        "arms": {"none": "weak, rate kept"},
        "definitions": {"level": 0.95, "target": 0.9},
        "groups": list(groups),
        **{"proofs": [], "tuning": [], "auto": []},
    }
    return dict(words.answer(result))["Letting the batch grow with the GPUs (weak scaling)"]


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
    assert "8 GPUs: in every arm runs fail" in said(better)


def test_the_answer_is_for_the_most_gpus():
    assert "A, 32 GPUs: 50 %" in said(group(0.5, (-0.1, 0.1)), group(0.25, (-0.3, -0.2), gpus=32))
