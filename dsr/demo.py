"""`dsr demo`: the whole main job on built-in data, from the simulated archive to the report."""

import sys
from pathlib import Path


def demo(folder: Path) -> int:
    """Simulate, train, evaluate, predict one forecast and write the report into `folder`. Returns the exit code."""
    from rich.console import Console

    from dsr import task
    from dsr.cluster import launch
    from dsr.data.output import export_forecast
    from dsr.data.simulate import builtin, error_growth, plot_error_growth
    from dsr.data.store import Store
    from dsr.predict import predict
    from dsr.run import Run
    from dsr.verify import evaluate, report

    run, console = Run(folder), Console(file=sys.stderr, highlight=False)
    console.rule("1/4  the built-in physical model at both resolutions")
    place = builtin()
    console.rule("2/4  training with DeepSpeed")
    job = task.resolve(None, (), str(place))
    devices = launch.find_devices()
    gpus = max(n for n in (1, 2, 4, 8) if n <= devices.count)  # strong scaling: any of them gives the same bits
    plan = launch.plan_run(job.experiment, devices, mode="strong", gpus=gpus, samples=job.samples)
    code = launch.launch(job, plan, devices, folder, force=True)
    if code:
        return code
    console.rule("3/4  skill on the test split")
    result = evaluate.evaluate(folder, None, "test")
    console.print(evaluate.table(result.to_json()))
    plot_error_growth(error_growth(place), run.report / "error_growth.png")
    page = report.write(folder, result.to_json())
    console.rule("4/4  one forecast, low resolution in, high resolution out")
    low, high = run.forecast_low, run.forecast_high
    export_forecast(Store(place), "test", low)
    predict(folder, [str(low)], high)
    console.print(f"report    {page}\nforecast  {high}\ncurves    tensorboard --logdir {folder}")
    return 0
