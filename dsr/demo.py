"""`dsr demo`: the whole main job on built-in data, from the simulated archive to the report."""

import sys
from pathlib import Path


def demo(folder: Path) -> int:
    """Simulate, train, evaluate, predict one forecast and write the report into `folder`. Returns the exit code."""
    from rich.console import Console

    from dsr.cluster.devices import find_devices
    from dsr.cluster.start import start
    from dsr.data.output import export_forecast
    from dsr.data.simulate import builtin, error_growth, plot_error_growth
    from dsr.data.store import Store
    from dsr.predict import predict
    from dsr.report import evaluation as report
    from dsr.report.evaluation_words import table as skill_table
    from dsr.run import Run
    from dsr.verify import evaluate

    run, console = Run(folder), Console(file=sys.stderr, highlight=False)
    console.rule("1/4  the built-in physical model at both resolutions")
    place = builtin()
    console.rule("2/4  training with DeepSpeed")
    gpus = max(n for n in (1, 2, 4, 8) if n <= find_devices().count)  # strong scaling: any of them gives the same bits
    code = start(store=str(place), gpus=gpus, run_dir=folder, force=True)
    if code:
        return code
    console.rule("3/4  skill on the test split")
    result = evaluate.evaluate(folder, None, "test")
    console.print(skill_table(result))
    plot_error_growth(error_growth(place), run.report / "error_growth.png")
    page = report.write(folder, result)
    console.rule("4/4  one forecast, low resolution in, high resolution out")
    low, high = run.forecast_low, run.forecast_high
    export_forecast(Store(place), "test", low)
    predict(folder, [str(low)], high)
    console.print(f"report    {page}\nforecast  {high}\ncurves    tensorboard --logdir {folder}")
    return 0
