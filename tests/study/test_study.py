"""A tiny study from end to end, killed in the middle and started again: its runs, tables, report, and Slurm jobs."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from dsr.errors import UserError
from dsr.run import Run
from dsr.study.ablate import ablate
from dsr.study.results import test_error as error_of
from tests.launched import wait_until
from tests.pages import read_page
from tests.study.ablations import linear, study

pytestmark = pytest.mark.slow

SEQUENTIAL = "tiny-sequential-rate0.004-seed1"


def write(folder: Path, store: Path) -> Path:
    """Two sequential runs, two weak ones, one that diverges, one candidate rate, two of auto and two of the proof."""
    arms = {
        "strong": {"label": "strong", "mode": "strong", "gpus": [1, 2, 3]},
        "none": {"label": "weak, rate kept", "mode": "weak", "gpus": [2, 16]},
        "wild": linear(label="weak, far too fast", changes=[], retune=[1e9], gpus=[2], seeds=[1]),
        "auto": {"label": "auto", "mode": "auto", "gpus": [3]},
    }
    return study(
        folder,
        store,
        arms=arms,
        gpus=[1, 2, 3, 16],
        tune={"rates": [0.0001, 0.004], "seeds": [1]},
        proof={"data": "tiny", "arms": ["strong"], "gpus": [2], "updates": 4},
    )


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def running(folder: Path) -> set[str]:
    """The cells whose ranks have logged an update, and have not ended."""
    cells = [path.parent for path in (folder / "cells").glob("*/metrics.jsonl")]
    return {cell.name for cell in cells if Run(cell).status()["state"] == "running"}


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_store):
    return write(tmp_path_factory.mktemp("study"), tiny_store)


@pytest.fixture(scope="module")
def killed(file):
    """The folder of the study after SIGKILL, when two runs were finished and others had begun: (folder, what was)."""
    folder = file.parent / "run"
    command = [sys.executable, "-m", "dsr", "ablate", str(file), "--run-dir", str(folder), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    done = {}
    while process.poll() is None and len(done) < 2:
        time.sleep(0.05)
        records = {path.stem: json.loads(path.read_text()) for path in folder.glob("results/*.json")}
        done = {name for name, record in records.items() if record["state"] in ("finished", "diverged")}
    wait_until(lambda: process.poll() is not None or running(folder) - done)  # into the next run
    process.send_signal(signal.SIGKILL)
    _, output = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    left = [path for name in done for path in (folder / "cells" / name).rglob("*") if path.is_file()]
    return folder, {path: path.stat().st_mtime_ns for path in left}, output


@pytest.fixture(scope="module")
def finished(file, killed):
    """The same study after the same command: (folder, its output, the times of the files that were there before)."""
    folder, before, _ = killed
    answer = subprocess.run(
        [sys.executable, "-m", "dsr", "ablate", str(file), "--run-dir", str(folder), "--jobs", "2"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return folder, answer.stderr, {path: path.stat().st_mtime_ns for path in before}


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_plan_is_printed_before_any_run_starts(killed):
    _, _, output = killed
    assert "A tiny study: 10 runs (3 to tune rates, 5 of the study, 2 to prove" in output
    assert "at once, about" in output
    assert "impossible: tiny, strong at 3 GPUs, equal epochs: 3 GPUs do not divide the 4 slots" in output
    assert "impossible: tiny, none at 16 GPUs, equal epochs: an effective batch of 64 samples is larger" in output


def test_no_run_outlives_a_killed_study(killed):
    wait_until(lambda: not processes_of(killed[0]))


def test_no_finished_run_is_run_again(killed, finished):
    assert len(killed[1]) > 10 and finished[2] == killed[1]


def test_a_line_for_every_run(finished):
    found = lines(finished[0])
    place = [(line["arm"], line["gpus"], line["seed"]) for line in found]
    both = [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    expected = [("sequential", "1", "1"), ("sequential", "1", "2"), *(("strong", *rest) for rest in both)]
    expected += [("strong", "3", ""), ("none", "2", "1"), ("none", "2", "2"), ("none", "16", ""), ("wild", "2", "1")]
    expected += [("auto", "3", "1"), ("auto", "3", "2")]
    assert place == expected
    by_arm = {(line["arm"], line["gpus"]): line for line in found}
    weak, strong = by_arm["none", "2"], by_arm["strong", "2"]
    assert (weak["mode"], weak["effective_batch"], weak["share"], weak["updates"]) == ("weak", "8", "0.2", "10")
    assert (strong["mode"], strong["effective_batch"], strong["updates"]) == ("strong", "4", "20")
    assert (strong["gpus"], strong["devices"]) == ("2", "1")
    assert strong["run"] == f"cells/{SEQUENTIAL.replace('seed1', 'seed2')}"
    assert strong["weights_sha256"] == by_arm["sequential", "1"]["weights_sha256"]
    assert strong["outcome"] == "unknown"  # two sequential runs have no interval
    assert by_arm["strong", "3"]["outcome"] == by_arm["none", "16"]["outcome"] == "impossible"
    assert "do not divide" in by_arm["strong", "3"]["reason"]


def test_a_run_that_is_not_finite_has_diverged_and_is_no_failure_of_the_study(finished):
    wild = next(line for line in lines(finished[0]) if line["arm"] == "wild")
    assert wild["outcome"] == "diverged" and "not finite" in wild["reason"] and wild["rmse"] == ""


def test_the_error_is_the_evaluation_s(finished):
    from dsr.verify.evaluate import evaluate

    run = finished[0] / "cells" / SEQUENTIAL
    error, whole = error_of(Run(run)), evaluate(run)
    for name in ("t", "p"):
        assert error.rmse[name] == pytest.approx(whole.variables[name].rmse["network"], rel=1e-6)
    ulp = float(np.spacing(np.float32(280)))  # the network's base and the baseline are rounded differently
    assert error.bicubic["t"] == pytest.approx(whole.variables["t"].rmse["bicubic"], abs=ulp)
    assert error.skill == pytest.approx(1 - error.rmse["t"] / error.bicubic["t"])


def test_the_study_s_file_holds_definitions_tuned_rates_and_proofs(finished):
    found = json.loads((finished[0] / "study.json").read_text())
    assert found["definitions"] == {"level": 0.95, "diverged_below": 0.0, "same": "prediction", "target": 0.95}
    tuned = found["tuning"][0]
    assert (tuned["arm"], tuned["rate"], set(tuned["validation_scores"])) == ("sequential", 0.004, {"0.0001", "0.004"})
    (proof,) = found["proofs"]
    assert (proof["arm"], proof["ranks"], proof["updates"], proof["same_bits"]) == ("strong", 2, 4, True)
    real = finished[0] / "cells" / "tiny-strong-2-epochs-rate0.004-seed1-proof-2"
    assert json.loads((real / "status.json").read_text())["ranks"] == 2
    groups = {(g["arm"], g["gpus"]): g for g in found["groups"]}
    assert groups["strong", 2]["identical"] and not groups["none", 2]["identical"]
    assert groups["wild", 2]["diverged"] == 1 and groups["wild", 2]["skill"] is None


def test_auto_runs_what_its_probe_chose_and_is_compared_with_the_best_of_the_grid(finished):
    found = json.loads((finished[0] / "study.json").read_text())
    (auto,) = found["auto"]
    assert (auto["data"], auto["arm"], auto["gpus"]) == ("tiny", "auto", 3)
    for run, line in zip(auto["runs"], [line for line in lines(finished[0]) if line["arm"] == "auto"], strict=True):
        plan = json.loads((finished[0] / line["run"] / "plan.json").read_text())
        assert plan["mode"] == "auto" and plan["devices"] == 1
        assert (run["effective_batch"], run["gpus"]) == (plan["effective_batch"], plan["gpus"])
        assert line["effective_batch"] == str(plan["effective_batch"])
        assert run["probe_samples"] == 4 * run["probe_updates"] == 4 * plan["auto"]["measured"]["updates"]
    page = (finished[0] / "report/index.html").read_text()
    assert "Mode auto against the grid" in page and "Letting a probe choose" in page


def test_the_report_stands_alone_and_answers_in_plain_words(finished):
    page = read_page(finished[0] / "report/index.html", (".csv", ".svg", ".json"))
    assert "Sharing the batch (strong scaling): it loses nothing. Up to 2 GPUs" in page
    assert "checked on up to 2 real ranks" in page
    weak = [line["outcome"] for line in lines(finished[0]) if line["mode"] == "weak" and line["gpus"] == "2"]
    assert f"{weak.count('diverged')} of 3 weak runs at equal epochs (1 were not finite" in page
    assert "2 real ranks and one device ended with the same weights" in page
    assert page.index("How more GPUs affect") < page.index("At a glance") < page.index("Definitions")
    for name in ("skill", "curves", "noise", "target", "speedup"):
        assert f" {name}.csv" in page or name in ("noise", "target")  # with nothing to draw
        assert (finished[0] / "report" / f"{name}.csv").exists()


def test_tensorboard_compares_the_runs(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    board = EventAccumulator(str(next((finished[0] / "cells").glob("tiny-none-2-*-seed2"))))
    board.Reload()
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (values["arm"].string_value, values["mode"].string_value) == ("none", "weak")
    assert (values["gpus"].number_value, values["effective_batch"].number_value) == (2, 8)
    assert board.Scalars("study/skill")[0].value == pytest.approx(float(lines(finished[0])[8]["skill"]), rel=1e-6)


def test_the_same_command_again_runs_nothing_and_writes_the_same(file, finished):
    folder = finished[0]
    before = {path: path.read_bytes() for path in (folder / "cells.csv", *folder.glob("report/*.csv"))}
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/status.json")}
    assert ablate(file, folder) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {path: path.read_bytes() for path in before} == before


def test_a_study_that_has_begun_refuses_other_definitions(file, finished):
    changed = {**json.loads(file.read_text()), "definitions": {"target": 0.5}}
    other = file.with_name("other.json")
    other.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"definitions.target was 0.95 when this study began, and is 0.5"):
        ablate(other, finished[0])


def test_a_run_that_is_lost_is_run_again_with_the_same_line(file, finished):
    folder = finished[0]
    name = next(folder.glob("cells/tiny-none-2-*-seed2")).name
    before = lines(folder)
    shutil.rmtree(folder / "cells" / name)
    (folder / "results" / f"{name}.json").unlink()
    assert ablate(file, folder) == 0
    for old, new in zip(before, lines(folder), strict=True):
        assert {**old, "seconds": ""} == {**new, "seconds": ""}


def test_slurm_gets_an_array_of_cells_between_tuning_and_report(file, tmp_path, monkeypatch, capsys):
    assert ablate(file, tmp_path / "run", submit="slurm", dry_run=True) == 0
    output = capsys.readouterr().out
    assert (
        "#SBATCH --array=1-3" in output and "#SBATCH --array=4-14" in output and "#SBATCH --cpus-per-task=2" in output
    )
    assert f"dsr ablate {file} --run-dir {tmp_path / 'run'} --cell $SLURM_ARRAY_TASK_ID" in output
    assert not (tmp_path / "run").exists()
    calls = tmp_path / "calls"
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nwc -l < {calls}\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ablate(file, tmp_path / "run", submit="slurm") == 0
    folder = tmp_path / "run" / "slurm"
    assert calls.read_text().splitlines() == [
        f"--parsable {folder}/tune.sh",
        f"--parsable --dependency=afterany:1 {folder}/cells.sh",
        f"--parsable --dependency=afterany:2 {folder}/report.sh",
    ]
    for script in folder.glob("*.sh"):
        assert subprocess.run(["sh", "-n", script]).returncode == 0


def test_a_task_of_the_array_runs_its_own_cell_and_no_other(file, finished, capsys):
    folder = finished[0]
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/status.json")}
    assert ablate(file, folder, cell=1) == 0
    assert ablate(file, folder, cell=6) == 0  # strong at one GPU
    assert f"strong-1-epochs-rate0.004-seed1 is the same computation as {SEQUENTIAL}" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_run_of_another_file_is_not_taken_for_the_cell_s(file, finished, tmp_path):
    """The run in the folder must be of the cell's own experiment; otherwise the cell is run anew."""
    from dsr.study import ablation as files
    from dsr.study.cells import Expansion
    from dsr.study.processes import Folder, _is_of

    expansion = Expansion(*files.read(file))
    cells = expansion.study({("tiny", "sequential", "epochs", 1): 0.004})
    folder = Folder(finished[0])
    first, second = cells[0], cells[1]
    assert _is_of(first, folder.run(first.name)) and not _is_of(first, folder.run(second.name))
    assert not _is_of(first, Run(tmp_path))
