"""What a run reports while it trains: metrics.jsonl, TensorBoard events, and a progress bar with the time left."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.progress import bar
from dsr.scaling.noise import unmeasured

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.data.features import Features
    from dsr.run import Run
    from dsr.scaling.noise import Noise
    from dsr.scaling.plan import Plan
    from dsr.train.gradients import Totals
    from dsr.train.validation import Skill, Validation

DRAWN = (
    *("loss", "learning_rate", "gradient_norm", "noise_scale"),
    *("samples_per_second", "waiting_for_data", "effective_batch"),
)


class Journal:
    """Writes on rank 0, where `run` is given, and does nothing on the other ranks. The x axis is the update."""

    def __init__(self, run: Run | None, experiment: Experiment, plan: Plan, features: Features, first: int):
        self.run, self.plan, self.features = run, plan, features
        self.every = experiment.dsr.log.every
        self.seconds, self.noted = 0.0, first  # spent in updates since the last line, without validation
        self.waited = 0.0  # of them, for data
        self.drawn = first  # the update of the last images
        self.last = False  # the run's last update has been recorded
        self.stack = contextlib.ExitStack()
        if run is None:
            return
        run.rewind(first)
        from torch.utils.tensorboard import SummaryWriter

        self.progress = bar()
        self.task = self.progress.add_task("training", total=plan.updates, completed=first)
        self.board = SummaryWriter(str(run.folder), purge_step=first + 1)
        self._hyper_parameters(experiment)
        if why := unmeasured(experiment.exact, plan.slots):
            self.progress.console.print(f"the gradient noise scale is not measured: {why}", soft_wrap=True)

    def __enter__(self) -> Journal:
        if self.run:
            self.stack.enter_context(self.progress)
            self.stack.callback(self.board.close)
        return self

    def __exit__(self, *problem: Any) -> None:
        self.stack.close()

    def update(
        self, done: int, rate: float, totals: Totals, noise: Noise, seconds: float, waited: float, last: bool
    ) -> None:
        """Record an update: its rate, its totals, the noise so far, the seconds that it took and that it `waited` for
        data, and whether it is the last one."""
        self.seconds, self.waited, self.last = self.seconds + seconds, self.waited + waited, last
        if self.run is None:
            return
        self.progress.update(self.task, completed=done)
        if done % self.every and not last:
            return
        loss = float(np.sum(totals.losses))
        samples = self.plan.samples_seen(done)
        line = {
            "update": done,
            "epoch": self.plan.epochs(done),
            "samples": samples,
            "time": time.time(),
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": totals.gradient_norm,
            "noise_scale": noise.scale,
            "noise_scale_interval": noise.interval(),
            "samples_per_second": (samples - self.plan.samples_seen(self.noted)) / self.seconds,
            "waiting_for_data": self.waited / self.seconds,
            "effective_batch": self.plan.phase(done - 1).effective_batch,
        }
        self.seconds, self.waited, self.noted = 0.0, 0.0, done
        self.run.log(**line)
        self.progress.update(self.task, description=f"training, loss {loss:.4f}")
        for name in DRAWN:
            if line[name] is not None:
                self.board.add_scalar(f"train/{name}", line[name], done)

    def validated(self, done: int, skill: Skill, validation: Validation) -> None:
        """Record one validation, in numbers and as an image of its first sample."""
        if self.run is None:
            return
        values = {"rmse": skill.rmse, "bicubic": skill.bicubic, "skill": skill.skill, "score": skill.score}
        self.run.log(update=done, epoch=self.plan.epochs(done), validation=values)
        units = {v.name: v.units for v in self.features.high}
        for name, rmse in skill.rmse.items():
            self.board.add_scalar(f"validation/rmse_{name}", rmse, done)
            if name in skill.skill:
                self.board.add_scalar(f"validation/skill_against_bicubic_{name}", skill.skill[name], done)
        if done >= 2 * self.drawn or self.last:  # drawing takes time, and later changes are slow
            self.drawn = done
            for variable, panels in validation.first_sample():
                image = side_by_side(panels, f"{variable.name} ({variable.units})")
                self.board.add_image(f"validation/{variable.name}", image, done, dataformats="HWC")
        self.board.flush()
        beside = {name: f" (bicubic {rmse:.4g})" for name, rmse in skill.bicubic.items()}
        text = ", ".join(f"{n} {r:.4g} {units[n]}{beside.get(n, '')}" for n, r in skill.rmse.items())
        self.progress.console.print(
            f"update {done}/{self.plan.updates}: validation RMSE {text}", highlight=False, soft_wrap=True
        )

    def _hyper_parameters(self, experiment: Experiment) -> None:
        """The run's settings for TensorBoard's HParams page, which derives its columns from all the runs it shows."""
        from torch.utils.tensorboard.summary import hparams

        settings = experiment.dsr.model.model_dump(mode="json", exclude={"name"})
        values = {
            "mode": self.plan.mode,
            "gpus": self.plan.gpus,
            "effective_batch": self.plan.effective_batch,
            "learning_rate": self.plan.learning_rate,
            "rule": self.plan.rule,
            "optimizer": experiment.optimizer_type,
            "seed": experiment.dsr.seed,
            **experiment.dsr.labels,
            "model": experiment.dsr.model.name,
            **{f"model.{key}": v if isinstance(v, int | float | str) else str(v) for key, v in settings.items()},
        }
        _, *session = hparams(values, {})
        for summary in session:
            self.board.file_writer.add_summary(summary)  # type: ignore[attr-defined]


def side_by_side(panels: dict[str, np.ndarray], label: str) -> np.ndarray:
    """Maps side by side on one colour scale: {title: (Y, X)} -> (height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    values = np.concatenate([field[np.isfinite(field)] for field in panels.values()])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (title, field) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(field, vmin=low, vmax=high, cmap="viridis", origin="lower", interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
