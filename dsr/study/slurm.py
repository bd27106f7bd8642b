"""A study as Slurm jobs: an array that tunes the rates, an array of the study's cells, and one job for the report."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from dsr.errors import UserError
from dsr.files import whole_file


def submit(
    file: Path, root: Path, quick: bool, tuned: int, studied: int, *, dry_run: bool = False, ranks: int = 1
) -> int:
    """Write the jobs' scripts to ROOT/slurm and hand them to sbatch; with `dry_run` print them, and write nothing.

    The last job, of `ranks` cores, runs the proofs and whatever is left, and writes the report.
    """
    jobs = scripts(file, root, quick, tuned, studied, ranks)
    if dry_run:
        for name, text in jobs.items():
            print(f"# {root / 'slurm' / name}.sh\n{text}")
        return 0
    if not shutil.which("sbatch"):
        raise UserError("--submit slurm: sbatch is not installed; --dry-run shows the scripts")
    after: list[str] = []
    for name, text in jobs.items():
        path = root / "slurm" / f"{name}.sh"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(text)
        line = ["sbatch", "--parsable", *after, str(path)]
        answer = subprocess.run(line, capture_output=True, text=True)
        if answer.returncode:
            raise UserError(f"{shlex.join(line)}: {answer.stderr.strip()}")
        number = answer.stdout.strip().partition(";")[0]
        after = [f"--dependency=afterany:{number}"]
        print(f"{name}: job {number}, {path}")
    return 0


def scripts(file: Path, root: Path, quick: bool, tuned: int, studied: int, ranks: int) -> dict[str, str]:
    """The jobs by name, in the order in which they depend on each other."""
    command = [sys.executable, "-m", "dsr", "ablate", str(file.absolute()), "--run-dir", str(root.absolute())]
    line = shlex.join([*command, *(["--quick"] if quick else [])])
    one = f"{line} --cell $SLURM_ARRAY_TASK_ID"
    jobs = {"tune": (f"--array=1-{tuned}", one)} if tuned else {}
    jobs["cells"] = (f"--array={tuned + 1}-{tuned + studied}", one)
    jobs["report"] = (f"--cpus-per-task={ranks}", line)
    head = "#!/bin/sh\n#SBATCH --job-name={job}\n#SBATCH --ntasks=1\n#SBATCH {what}\n#SBATCH --output={log}\n\n"
    here = f"cd {shlex.quote(str(Path.cwd()))} || exit 1\nexec"
    return {
        name: head.format(
            job=f"dsr-{root.name}-{name}",
            what=what,
            log=f"{root.absolute()}/slurm/{name}-%A_%a.log",
        )
        + f"{here} {run}\n"
        for name, (what, run) in jobs.items()
    }
