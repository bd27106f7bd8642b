"""The answer in plain words: a loss is named with what the seeds can show, and never called small without proof."""

import pytest

from dsr.study import words

SEQUENTIAL = {"label": "A", "sequential_skill": [0.5, 0.5]}


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
        (0.3, (-0.25, -0.15), "0.200 of 0.500 at 8 GPUs"),
        (0.49, (-0.04, 0.02), "less than 10 % at 8 GPUs"),
        (0.6, (0.05, 0.15), "nothing (it gains 0.100) at 8 GPUs"),
        (0.2, (-0.7, 0.1), "0.300 of 0.500, not proven (the seeds allow 0.000 to 0.700) at 8 GPUs"),
        (0.52, (-0.1, 0.14), "0.000 of 0.500, not proven (the seeds allow 0.000 to 0.100) at 8 GPUs"),
        (0.4, None, "0.100 of 0.500 (too few seeds to compare) at 8 GPUs"),
    ],
)
def test_a_loss_is_named_with_what_the_seeds_show(skill, interval, expected):
    assert (
        said(group(skill, interval))
        == f"what the best arm, picked by hindsight, loses of one GPU's skill. A: {expected}."
    )


def test_an_arm_with_failing_runs_is_not_the_best():
    better = group(0.49, (-0.02, 0.01), diverged=1)
    assert "0.200 of 0.500 at 8 GPUs" in said(better, group(0.3, (-0.25, -0.15)))
    assert "in every arm some runs fail at 8 GPUs" in said(better)


def test_equal_findings_share_their_counts():
    fine = [group(0.5, (-0.01, 0.01), gpus=n) for n in (2, 4, 8)]
    assert "less than 10 % at 2, 4 and 8 GPUs." in said(*fine)
