"""Every command of `dsr`: parse, call, print. No logic, and no heavy import before a command runs."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import click

import dsr
from dsr.errors import UserError

FILE = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True)
CONFIG = click.argument("config", type=FILE, required=False)
DATA = click.option(
    "--data", "store", metavar="STORE", help="The store to use; by default the config's, or the built-in data."
)
SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value of the config.")


def _allow(context: click.Context, option: click.Parameter, packages: tuple[str, ...]) -> None:
    if packages:
        from dsr.components import allow

        allow(packages)


ALLOW = click.option(
    "--allow-code",
    multiple=True,
    metavar="PACKAGE",
    expose_value=False,
    callback=_allow,
    help="Allow custom components that the run names to be imported from this package.",
)


def _include(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> None:
    if names:
        from dsr.verify.baselines import BASELINES
        from dsr.verify.metrics import METRICS

        for name in names:
            (METRICS if option.name == "metric" else BASELINES).include(name)


def _custom(kind: str) -> Any:
    """The option that adds a custom metric or baseline."""
    help = f"A custom {kind}, in addition to those of dsr."
    settings: Any = {"metavar": "PACKAGE.MODULE:CLASS", "expose_value": False, "callback": _include}
    return click.option(f"--{kind}", multiple=True, help=help, **settings)


class Guarded(click.Group):
    """Turns exceptions into one or two lines and an exit code: 2 for wrong input, 1 for everything else."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if context.params.get("debug"):
                raise
            message = str(error) if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {error}"
            if "://" in message:
                from dsr.urls import without_credentials

                message = without_credentials(message)
            click.echo(f"error: {message}", err=True)
            context.exit(2 if isinstance(error, UserError) else 1)


class LauncherOption(click.Option):
    """An option whose help lists the launchers, which are imported only when help is shown."""

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        from dsr.cluster.launchers import LAUNCHERS

        self.help = f"{', '.join(LAUNCHERS.table)}, or a custom one as package.module:Class."
        return super().get_help_record(context)


@click.group(cls=Guarded, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(dsr.__version__, prog_name="dsr")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Deep downscaling of weather forecasts, with strong scaling that is exact to the bit."""
    if debug:
        os.environ["DSR_DEBUG"] = "1"


@main.command()
@click.option("--run-dir", type=FILE, default=Path("runs/demo"), show_default=True)
def demo(run_dir: Path) -> None:
    """Everything on built-in data: simulate, train, evaluate, predict, report."""
    from dsr.demo import demo

    sys.exit(demo(run_dir))


@main.group()
def data() -> None:
    """Create and inspect stores: paired low- and high-resolution fields."""


@data.command()
@click.argument("store", type=FILE)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--control", is_flag=True, help="Flat terrain and no moisture: a nearly linear model, as a check.")
def simulate(store: Path, seed: int, control: bool) -> None:
    """Run the built-in physical model at both resolutions and write a paired STORE."""
    from dsr.data.simulate import Settings

    dsr.simulate(store, Settings(seed=seed, flat=control, dry=control))


@data.command()
@click.argument("recipe", type=FILE, required=False)
@click.option("--high", multiple=True, metavar="GLOB", help="High-resolution archive (quote the glob; repeatable).")
@click.option("--low", multiple=True, metavar="GLOB", help="Low-resolution archive (quote the glob; repeatable).")
@click.option("--static", multiple=True, metavar="FILE", help="Static fields on the high grid.")
@click.option("--factor", type=int, help="Coarsen by this factor to get the low fields.")
@click.option("--pairing", type=click.Choice(["same-run", "valid-time"]), help="Needed only if both are possible.")
@click.option("--split", type=click.Choice(["time", "region"]), help="By initial time (the default) or by boxes.")
@click.option(
    "--gap", type=float, metavar="HOURS", help="Left out between splits, in addition to the longest lead time."
)
@click.option(
    "--root", type=EXISTING, metavar="DIR", help="Folder of a recipe's files; by default the recipe's folder."
)
@click.option("-o", "--output", type=FILE, metavar="STORE", help="The new store; not needed with --dry-run.")
@click.option("--dry-run", is_flag=True, help="Show grids, pairs and dropped times; write nothing.")
@click.option("--append", is_flag=True, help="Add later runs that the STORE lacks, in one step for its readers.")
def prepare(**options: Any) -> None:
    """Turn archives (NetCDF, GRIB, Zarr) into a paired store, with options or a RECIPE.json."""
    if options["output"] is None and not options["dry_run"]:
        raise UserError("-o STORE is missing: give the path of the new store")
    click.echo(dsr.prepare(**options))


@data.command()
@click.argument("store", type=str)
@click.option("--html", is_flag=True, help="Also write a page that shows whether low and high match: STORE.html.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Path of the page; by default beside the store.")
@click.option("--bench", is_flag=True, help="Measure for ten seconds: is reading or the network the bottleneck?")
@click.option("--config", type=FILE, help="The config whose network --bench runs; by default the default config.")
def info(store: str, html: bool, output: Path | None, bench: bool, config: Path | None) -> None:
    """Grids, times, pairing, splits, statistics, fingerprint and problems of a STORE."""
    from dsr.data.info import describe

    if output is not None and not html:
        raise UserError("-o FILE is the path of the page: add --html")
    if config is not None and not bench:
        raise UserError("--config FILE is for --bench: add --bench")
    if bench:
        from dsr.bench import bench as measure

        click.echo(measure(store, config))
        return
    click.echo(describe(store))
    if html:
        from dsr.report import store as page

        click.echo(f"page: {page.write(store, output)}", err=True)


@data.command()
@click.argument("store", type=str)
@click.option("-o", "--output", type=FILE, metavar="NEW", help="Write the new store there and keep STORE.")
def optimize(store: str, output: Path | None) -> None:
    """Rewrite the chunks of a STORE so that they decode faster; prints the gain."""
    from dsr.data.optimize import optimize

    click.echo(optimize(store, output))


@main.command()
@CONFIG
@click.option("--gpus", default="1,2,4,8,16,32", show_default=True, help="GPU counts, separated by commas.")
@DATA
@SET
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Train briefly on 1 and on 2 ranks: both must end with the same bits.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of a config, for use in an editor.")
def plan(
    config: Path | None,
    gpus: str,
    store: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    check: bool,
    schema: bool,
) -> None:
    """Show the derived numbers of every mode side by side, and what is impossible and why."""
    if schema:
        from dsr.config import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        return
    if check:
        from dsr.cluster.check import check as same_bits

        sys.exit(0 if same_bits(config, overrides, store) else 1)
    from dsr.scaling.table import table

    result = dsr.plan(config, gpu_counts(gpus), store=store, overrides=overrides)
    show(json.dumps(result, indent=2) if as_json else table(result))


@main.command()
@CONFIG
@click.option(
    "--gpus", type=int, help="Number of GPUs, by default 1; with --mode auto the most to use, by default all."
)
@click.option(
    "--mode",
    type=click.Choice(["sequential", "strong", "weak", "auto"]),
    help="By default strong; auto measures first, then chooses batch and GPUs.",
)
@DATA
@click.option("--run-dir", type=FILE, help="The run's folder; by default runs/CONFIG-MODE-GPUS.")
@SET
@click.option("--devices", type=int, default=0, help="Devices to use; fewer than --gpus means a rehearsal.")
@click.option("--strict", is_flag=True, help="Refuse to rehearse.")
@click.option("--hostfile", type=EXISTING, help="Hosts and their devices: lines such as worker-0 slots=4.")
@click.option("--launcher", default="", cls=LauncherOption)
@click.option("--launcher-args", default="", help="Arguments for the launcher.")
@click.option("--include", default="", metavar="HOST:0,1@HOST", help="DeepSpeed's filter of devices.")
@click.option("--exclude", default="", metavar="HOST:0,1@HOST", help="DeepSpeed's filter of devices.")
@ALLOW
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in the folder.")
@click.option("--force", is_flag=True, help="Replace an existing run; with --resume, continue despite changes.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the exact command; start nothing.")
def launch(config: Path | None, **options: Any) -> None:
    """Train on --gpus GPUs: the deepspeed launcher, wrapped."""
    from dsr.cluster.start import start

    sys.exit(start(config, **options))


@main.command()
@click.argument("run", type=FILE)
@DATA
@ALLOW
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@_custom("metric")
@_custom("baseline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(run: Path, store: str | None, split: str, as_json: bool) -> None:
    """Score a RUN's network against every baseline and write the run's report."""
    from dsr.report import evaluation as report
    from dsr.report.evaluation_words import table as skill_table
    from dsr.verify import evaluate

    result = evaluate.evaluate(run, store, split)
    show(json.dumps(result.to_json(), indent=2) if as_json else skill_table(result))
    click.echo(f"report: {report.write(run, result)}", err=True)


@main.command()
@click.argument("run", type=FILE)
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="A new .nc file or .zarr folder.")
@click.option("--fill", is_flag=True, help="Replace missing input values with the training mean.")
@click.option("--grid", type=EXISTING, help="A file on another high-resolution grid to predict on.")
@click.option("--static", type=EXISTING, help="The static fields on that grid.")
@ALLOW
def predict(
    run: Path, inputs: tuple[str, ...], output: Path, fill: bool, grid: Path | None, static: Path | None
) -> None:
    """Downscale a low-resolution forecast with a RUN's network into a CF-conformant file."""
    from dsr.predict import predict

    show(predict(run, list(inputs), output, fill=fill, grid=grid, static=static))


@main.command()
@click.argument("file", type=EXISTING)
@click.option("--run-dir", type=FILE, help="The study's folder; by default runs/FILE.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at once; by default one per core.")
@click.option("--quick", is_flag=True, help="Run the smaller study in the section quick of FILE.")
@click.option("--submit", type=click.Choice(["slurm"]), help="Submit the runs to Slurm as job arrays.")
@click.option("--cell", type=int, metavar="K", help="Run only cell K, as a task of such an array.")
@click.option("--dry-run", is_flag=True, help="List the cells, or the Slurm scripts; start nothing.")
def ablate(file: Path, **options: Any) -> None:
    """Run every cell of an ablation FILE: how more GPUs affect the result, as tables and a report."""
    from dsr.study.ablate import ablate

    sys.exit(ablate(file, **options))


@main.command()
def doctor() -> None:
    """Check accelerator, launchers, backends, versions, and that the command `dsr` is ours (repaired if not)."""
    from dsr.cluster.doctor import examine

    show(examine())


def gpu_counts(text: str) -> list[int]:
    """The numbers of GPUs in "1,2,4". Raises UserError for anything else."""
    counts = [int(part) for part in text.split(",") if re.fullmatch(r" *[0-9]+ *", part)]
    if len(counts) < text.count(",") + 1 or min(counts) < 1:
        raise UserError(f"--gpus {text}: give positive whole numbers separated by commas, such as 1,2,4")
    return counts


def show(what: Any) -> None:
    """Print plain text or a rich table."""
    if isinstance(what, str):
        click.echo(what)
    else:
        from rich.console import Console

        Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(what)


if __name__ == "__main__":
    main()
