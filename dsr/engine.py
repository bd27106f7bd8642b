"""DeepSpeed, and the only file that imports it: ranks, the engine, its exact reduction, and what the engine holds."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from dsr import optim
from dsr.reduce import SlotSum, gather_ordered, norm

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling import Phase, Plan


def start(timeout_seconds: float = 1800) -> torch.device:
    """Join the process group (gloo on CPU, NCCL on CUDA) and make this rank's arithmetic deterministic."""
    cuda = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes; gloo needs it not
    deepspeed.utils.logger.setLevel("ERROR")
    torch.use_deterministic_algorithms(True)
    # else ZeRO 2 fills its 2 GB bucket in every update
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if not cuda:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        _keep_memory()
    backend = "nccl" if cuda else "gloo"
    deepspeed.init_distributed(dist_backend=backend, timeout=timedelta(seconds=timeout_seconds), verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    return device


BUCKET = 2**18  # elements: gradients are summed, and sent, in buckets of at least as many


def _keep_memory() -> None:
    """Have glibc keep freed memory: slots' gradients come and go, and fresh pages cost more than adding them up."""
    with contextlib.suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, its largest value
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def build(
    network: torch.nn.Module, config: dict[str, Any], experiment: Experiment, plan: Plan
) -> tuple[Any, Reduction]:
    """The DeepSpeed engine around `network`, and how its gradients are reduced.

    `config` is what dsr.scaling.deepspeed_config gave. On the exact path the engine's allreduce_gradients, which it
    calls after every backward, is the slot tree's.
    """
    import deepspeed

    passed = {key: value for key, value in config.items() if key != "dsr"}
    parameters = [p for p in network.parameters() if p.requires_grad]
    own, optimizer = experiment.dsr.optimizer, None
    if own:
        optimizer = optim.build(own.type, parameters, passed.pop("optimizer")["params"], own.trust)
    engine, *_ = deepspeed.initialize(model=network, model_parameters=parameters, optimizer=optimizer, config=passed)
    if not experiment.exact:
        return engine, StockReduction(engine, plan.slots)
    reduction = ExactReduction(engine, parameters, plan.slots, experiment.clipping)
    engine.allreduce_gradients = reduction.reduce
    engine.zero_grad = reduction.zero_grad  # DeepSpeed's walks through all modules in every update
    if not (engine.flops_profiler_enabled() or engine.wall_clock_breakdown()):
        engine.module_forward_pre_hook.remove()  # they only serve those two, fp16 and ZeRO 3
        engine.module_forward_post_hook.remove()
    return engine, reduction


MEASURED = 16  # slots an update, at most, whose gradient's norm is taken: each costs a pass over the gradient


@dataclass
class Totals:
    """What an update's reduction tells, the same on every rank."""

    losses: list[float]  # by slot
    gradient_norm: float | None  # before clipping; None where only shards of the gradient are at hand
    stop: bool  # some rank was asked to stop
    slot_norms: list[float] | None = None  # squared, of measured slots' gradients; None with one slot, or not at hand


class ExactReduction:
    """Gradients, the slots' losses and norms, and the wish to stop, go through the slot tree.

    Parameters are dealt to buckets from the last to the first, as backward reaches them; all but the last bucket are
    taken in while backward goes on. The last one carries the notes: losses and squared norms by slot, and the wish.
    """

    def __init__(self, engine: Any, parameters: list[torch.nn.Parameter], slots: int, clipping: float):
        self.engine, self.clipping, self.parameters = engine, clipping, parameters
        self.buckets: list[list[torch.nn.Parameter]] = [[]]
        for parameter in reversed(parameters):
            if sum(p.numel() for p in self.buckets[-1]) >= BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.resize(slots)
        for number, bucket in enumerate(self.buckets[:-1]):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._is_ready(number))
        self._begin()

    def resize(self, slots: int) -> None:
        """From the next update on an update has so many slots."""
        sizes = [[p.numel() for p in bucket] for bucket in self.buckets]
        sizes[-1].append(2 * slots + 1)  # the notes
        self.sum = SlotSum(sizes, slots, self.parameters[0].device)
        self.slots, self.stride = slots, -(-slots // MEASURED)  # one slot in so many is measured

    def note(self, slot: int, loss: torch.Tensor, stop: bool) -> torch.Tensor:
        """Remember what travels with the slot's gradients; returns the slot's share of the loss, for its backward."""
        self.slot, self.notes = slot, torch.zeros(2 * self.slots + 1, device=loss.device)
        self.notes[slot] = loss.detach()
        self.notes[-1] = float(stop)
        return loss / self.slots

    @torch.no_grad()
    def reduce(self, bucket_size: int | None = None) -> None:
        """Take in what is left of a slot; at the accumulation boundary replace the gradients by their sum."""
        while self.next < len(self.buckets):
            self._push()
        self._begin()
        if not self.engine.is_gradient_accumulation_boundary():
            return
        sums = self.sum.finish()
        notes = sums[-1].pop()
        gradients = [gradient for bucket in sums for gradient in bucket]
        total = norm(gradients).item()
        if 0 < self.clipping < total:
            torch._foreach_mul_(gradients, self.clipping / (total + 1e-6))
        for bucket, parts in zip(self.buckets, sums, strict=True):
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)  # rounded once
        values = notes.tolist()
        norms = [value * self.slots**2 for value in values[self.slots : -1 : self.stride]] if self.slots > 1 else None
        self.totals = Totals(values[: self.slots], total, values[-1] > 0, norms)

    def finish(self) -> Totals:
        """The update's totals, after its last backward and before the optimizer."""
        return self.totals

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _begin(self) -> None:
        self.next, self.waiting = 0, [len(bucket) for bucket in self.buckets]

    @torch.no_grad()
    def _is_ready(self, bucket: int) -> None:
        """Called by backward for each parameter outside the last bucket. All ranks take buckets in the same order."""
        self.waiting[bucket] -= 1
        while self.next < len(self.buckets) - 1 and self.waiting[self.next] == 0:
            self._push()

    def _push(self) -> None:
        bucket, gradients = self.buckets[self.next], []
        for parameter in bucket:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(gradient.float().contiguous())  # the tree adds in float32
            parameter.grad = None
        if self.slots > 1 and self.slot % self.stride == 0:
            self.notes[self.slots + self.slot] += norm(gradients).square()
        if self.next == len(self.buckets) - 1:
            gradients.append(self.notes)
        self.sum.push(self.next, gradients)
        self.next += 1


@dataclass
class StockReduction:
    """DeepSpeed's own reduction; the slots' losses and the wish to stop are gathered beside it."""

    engine: Any
    slots: int
    notes: list[torch.Tensor] = field(default_factory=list)

    def resize(self, slots: int) -> None:
        """From the next update on an update has so many slots."""
        self.slots = slots

    def note(self, slot: int, loss: torch.Tensor, stop: bool) -> torch.Tensor:
        """Remember a slot's loss, and whether this rank was asked to stop; returns the slot's share of the loss."""
        self.notes.append(torch.stack([loss.detach().float(), loss.new_tensor(float(stop), dtype=torch.float32)]))
        return loss / self.engine.gradient_accumulation_steps()

    def finish(self) -> Totals:
        """The update's totals, after its last backward and before the optimizer."""
        rows = torch.stack(self.notes)
        self.notes = []
        whole = gather_ordered(rows, dist.get_rank() * len(rows), self.slots)
        total = None
        if self.engine.zero_optimization_stage() == 0:
            gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
            total = norm(gradients).item()
        return Totals(whole[:, 0].tolist(), total, bool(whole[:, 1].any()))


Reduction = ExactReduction | StockReduction


def weights(engine: Any) -> dict[str, torch.Tensor]:
    """The network's parameters by name, on the CPU; every rank must call it (at ZeRO stage 3 it gathers)."""
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(parameters.values()), enabled=engine.zero_optimization_stage() == 3):
        return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}


State = tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]  # {"network", "optimizer"} -> tensors, and JSON


def state(engine: Any) -> State:
    """All that a resumed run needs at ZeRO stage 0: tensors by name, and plain JSON values."""
    optimizer = engine.optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in optimizer["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.detach().cpu().clone()
            else:
                scalars.setdefault(str(index), {})[key] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer["param_groups"]]
    scheduler = engine.lr_scheduler.state_dict() if engine.lr_scheduler is not None else None
    values = {"optimizer": scalars, "groups": groups, "scheduler": scheduler, "steps": engine.global_steps}
    return {"network": weights(engine), "optimizer": tensors}, values


def restore(engine: Any, tensors: dict[str, dict[str, torch.Tensor]], values: dict[str, Any]) -> None:
    """Put back what `state` gave."""
    with torch.no_grad():
        for name, parameter in engine.module.named_parameters():
            parameter.copy_(tensors["network"][name])
    current = engine.optimizer.state_dict()
    held: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in values["optimizer"].items()}
    for name, tensor in tensors["optimizer"].items():
        index, key = name.split(".", 1)
        held.setdefault(int(index), {})[key] = tensor
    groups = [
        {**group, **saved} for group, saved in zip(current["param_groups"], values["groups"], strict=True)
    ]  # the parameters' numbers are the optimizer's own, the rest is what was saved
    engine.optimizer.load_state_dict({"state": held, "param_groups": groups})
    if engine.lr_scheduler is not None:
        engine.lr_scheduler.load_state_dict(values["scheduler"])
    engine.global_steps = values["steps"]


def is_plain(engine: Any) -> bool:
    """Whether the optimizer is torch's own, as at stage 0 in float32: DeepSpeed wraps it for bf16 and ZeRO."""
    return isinstance(engine.optimizer, torch.optim.Optimizer)


def resize(engine: Any, reduction: Reduction, phase: Phase) -> None:
    """Let the updates have a phase's size; call between two updates, at ZeRO stage 0."""
    if reduction.slots != phase.slots:
        engine.set_train_batch_size(phase.effective_batch)
        reduction.resize(phase.slots)


def learning_rate(engine: Any) -> float:
    """The rate that the next update will use."""
    return engine.optimizer.param_groups[0]["lr"]


def set_rate(engine: Any, plan: Plan, progress: float, gain: float) -> None:
    """AdaScale's rate of the coming update: the gain times the sequential schedule, read at the progress."""
    scheduled = plan.learning_rate
    if engine.lr_scheduler is not None:
        engine.lr_scheduler.step(int(progress) - 1)  # what DeepSpeed plays in that update: it steps after each
        scheduled = engine.lr_scheduler.get_last_lr()[0]
    for group in engine.optimizer.param_groups:
        group["lr"] = gain * scheduled


def broadcast_json(value: Any) -> Any:
    """Rank 0's JSON value on every rank: the run folder need be visible to rank 0 only."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_state(state: State | None, device: torch.device) -> State | None:
    """Rank 0's `state`, or None, on every rank; the tensors come on the CPU."""
    described = state and {
        group: {n: (list(t.shape), str(t.dtype)) for n, t in ts.items()} for group, ts in state[0].items()
    }
    values, described = broadcast_json((state and state[1], described))
    if described is None:
        return None
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for group, entries in described.items():
        for name, (shape, dtype) in entries.items():
            empty = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            tensor = (state[0][group][name] if state else empty).to(device)
            dist.broadcast(tensor, src=0)
            tensors.setdefault(group, {})[name] = tensor.cpu()
    return tensors, values


def generator(device: torch.device) -> torch.Generator:
    """The source of all randomness on a device; torch.manual_seed, which seeds every kind there is, takes longer."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator


def gather_marks(mark: str) -> list[str]:
    """Every rank's mark, in the order of the ranks."""
    marks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(marks, mark)
    return marks


def finish() -> None:
    """Leave the process group, after every rank has come here."""
    dist.barrier()
    dist.destroy_process_group()
