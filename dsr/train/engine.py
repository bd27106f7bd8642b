"""DeepSpeed, and the only file that imports it: ranks, the engine, its exact reduction, and what the engine holds."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from dsr.train import optim
from dsr.train.reduce import SlotSum, gather_ordered, norm

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Phase, Plan


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
    if plan.scheduler and plan.scheduler != experiment.deepspeed.get("scheduler"):
        begin_schedule(engine.lr_scheduler)
    if not experiment.exact:
        return engine, StockReduction(engine, plan.slots)
    reduction = ExactReduction(engine, parameters, plan.slots, experiment.clipping)
    engine.allreduce_gradients = reduction.reduce
    engine.zero_grad = reduction.zero_grad  # DeepSpeed's walks through all modules in every update
    if not (engine.flops_profiler_enabled() or engine.wall_clock_breakdown()):
        engine.module_forward_pre_hook.remove()  # they only serve those two, fp16 and ZeRO 3
        engine.module_forward_post_hook.remove()
    return engine, reduction


def begin_schedule(scheduler: Any) -> None:
    """Have a schedule that a rule made begin with its first step.

    DeepSpeed plays one update before it: WarmupCosineLR a rate of 0, the others their minimum twice. The user's own
    schedule is left as DeepSpeed plays it; of a weak run's few updates none may be lost.
    """
    scheduler.step(0)


MEASURED = 4  # one slot in so many has its gradient's norm taken, which costs a pass over the gradient


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
        # in float32 autograd adds the second of a pair of slots to the first as the tree would, and in place
        self.pairs = all(parameter.dtype == torch.float32 for parameter in parameters)
        self.buckets: list[list[torch.nn.Parameter]] = [[]]
        for parameter in reversed(parameters):
            if sum(p.numel() for p in self.buckets[-1]) >= BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.resize(slots)
        for number, bucket in enumerate(self.buckets[:-1]):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._is_ready(number))

    def resize(self, slots: int) -> None:
        """From the next update on an update has so many slots."""
        sizes = [[p.numel() for p in bucket] for bucket in self.buckets]
        self.sum = SlotSum(sizes, slots, 2 * slots + 1, self.parameters[0].device)
        self.slots, self.tree = slots, self.sum.trees[0]
        self._begin_update()
        self._begin_slot()

    def note(self, slot: int, loss: torch.Tensor, stop: bool) -> torch.Tensor:
        """Remember what travels with the slot's gradients; returns the slot's share of the loss, for its backward."""
        self.slot = slot
        self.losses.append(loss.detach())
        self.stop |= stop
        return loss / self.slots

    @torch.no_grad()
    def reduce(self, bucket_size: int | None = None) -> None:
        """Take in what is left of a slot; at the accumulation boundary replace the gradients by their sum."""
        while self.next < len(self.buckets):
            self._take()
        self._begin_slot()
        if not self.engine.is_gradient_accumulation_boundary():
            return
        sums, notes = self.sum.finish()
        gradients = [gradient for bucket in sums for gradient in bucket]
        total = norm(gradients).item()
        if 0 < self.clipping < total:
            torch._foreach_mul_(gradients, self.clipping / (total + 1e-6))
        for bucket, parts in zip(self.buckets, sums, strict=True):
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)  # rounded once
        values = notes.tolist()
        norms = [value * self.slots**2 for value in values[self.slots : -1 : MEASURED]] if self.slots > 1 else None
        self.totals = Totals(values[: self.slots], total, values[-1] > 0, norms)
        self._begin_update()

    def finish(self) -> Totals:
        """The update's totals, after its last backward and before the optimizer."""
        return self.totals

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _begin_update(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.squares: dict[int, torch.Tensor] = {}  # of the measured slots' norms
        self.stop: bool = False

    def _begin_slot(self) -> None:
        self.next, self.waiting = 0, [len(bucket) for bucket in self.buckets]

    @torch.no_grad()
    def _is_ready(self, bucket: int) -> None:
        """Called by backward for each parameter outside the last bucket. All ranks take buckets in the same order."""
        self.waiting[bucket] -= 1
        while self.next < len(self.buckets) - 1 and self.waiting[self.next] == 0:
            self._take()

    def _take(self) -> None:
        """Take in the next bucket of this slot, unless it waits in place for the second of its pair."""
        bucket, number = self.buckets[self.next], self.next
        self.next += 1
        measured, waits = self.slots > 1 and self.slot % MEASURED == 0, self._waits(self.slot)
        if waits and not measured:
            return
        gradients = []
        for parameter in bucket:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(gradient.float().contiguous())  # the tree adds in float32
        if measured:
            self.squares[self.slot] = self.squares.get(self.slot, 0.0) + norm(gradients).square()
        if waits:
            return
        for parameter in bucket:
            parameter.grad = None
        if self.slot == self.tree.last - 1 and number == len(self.buckets) - 1:
            self.sum.notes = self._notes()
        self.sum.push(number, gradients, 2 if self._waits(self.slot - 1) else 1)

    def _waits(self, slot: int) -> bool:
        """Whether a slot's gradients stay in place for the next one's, unless that is to be measured alone."""
        return self.pairs and self.tree.is_first_of_pair(slot) and (slot + 1) % MEASURED != 0

    def _notes(self) -> torch.Tensor:
        """(2 slots + 1) float32: losses, squared norms and the wish to stop; 0 where other ranks know."""
        notes = torch.zeros(2 * self.slots + 1, device=self.losses[0].device)
        notes[self.tree.first : self.tree.last] = torch.stack(self.losses)
        for slot, square in self.squares.items():
            notes[self.slots + slot] = square
        notes[-1] = float(self.stop)
        return notes


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


State = tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]  # {"network", "optimizer", ...} -> tensors, and JSON


def state(engine: Any) -> State:
    """All that a resumed run needs, whole, whatever the ZeRO stage: tensors by name on the CPU, and plain JSON values.

    "network" holds the weights, "optimizer" the optimizer's tensors as NUMBER.KEY of each parameter, and "master" the
    float32 weights where the network's are bf16. Every rank must call it; shards are gathered.
    """
    inner = _inner(engine)
    tensors: dict[str, dict[str, torch.Tensor]] = {"network": weights(engine), "optimizer": {}}
    scalars: dict[str, dict[str, Any]] = {}
    for number, (master, values) in enumerate(_gathered(engine) if _is_sharded(engine) else _own(engine)):
        if engine.bfloat16_enabled():
            tensors.setdefault("master", {})[str(number)] = master.detach().cpu().clone()
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors["optimizer"][f"{number}.{key}"] = value.detach().cpu().clone()
            else:
                scalars.setdefault(str(number), {})[key] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in inner.param_groups]
    scheduler = engine.lr_scheduler.state_dict() if engine.lr_scheduler is not None else None
    return tensors, {"optimizer": scalars, "groups": groups, "scheduler": scheduler, "steps": engine.global_steps}


def restore(engine: Any, tensors: dict[str, dict[str, torch.Tensor]], values: dict[str, Any]) -> None:
    """Put back what `state` gave, on any number of ranks; every rank must call it."""
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    zero3 = engine.zero_optimization_stage() == 3
    with (
        torch.no_grad(),
        deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0, enabled=zero3),
    ):
        for name, parameter in parameters.items():
            parameter.copy_(tensors["network"][name])
    held: dict[int, dict[str, Any]] = {int(number): dict(entry) for number, entry in values["optimizer"].items()}
    for name, tensor in tensors["optimizer"].items():
        number, key = name.split(".", 1)
        held.setdefault(int(number), {})[key] = tensor
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if "master" in tensors:
        masters = [tensors["master"][str(number)] for number in range(len(trained))]
    else:
        masters = [tensors["network"][name] for name in trained]
    inner = _inner(engine)
    if _is_sharded(engine):
        _scatter(engine, masters, held)
        for group, saved in zip(inner.param_groups, values["groups"], strict=True):
            group.update(saved)
    else:
        groups = [
            {**group, **saved}
            for group, saved in zip(inner.state_dict()["param_groups"], values["groups"], strict=True)
        ]  # the parameters' numbers are the optimizer's own, the rest is what was saved
        inner.load_state_dict({"state": held, "param_groups": groups})
        with torch.no_grad():
            for parameter, master in zip(_masters(engine), masters, strict=True):
                parameter.copy_(master)
    if engine.lr_scheduler is not None:
        engine.lr_scheduler.load_state_dict(values["scheduler"])
    engine.global_steps = values["steps"]


def _inner(engine: Any) -> torch.optim.Optimizer:
    """torch's optimizer, which DeepSpeed wraps for bf16 and ZeRO."""
    return engine.optimizer if isinstance(engine.optimizer, torch.optim.Optimizer) else engine.optimizer.optimizer


def _is_sharded(engine: Any) -> bool:
    return engine.zero_optimization_stage() > 0


def _masters(engine: Any) -> list[torch.Tensor]:
    """At stage 0, the float32 weights that the optimizer moves, parameter by parameter."""
    return [parameter for group in _inner(engine).param_groups for parameter in group["params"]]


def _own(engine: Any) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """At stage 0, each parameter's float32 weights and its optimizer's values."""
    for master in _masters(engine):
        yield master, _inner(engine).state[master]


def _partitions(engine: Any) -> list[torch.Tensor]:
    """At stages 1-3, the flat float32 shards that this rank's optimizer moves."""
    names = "single_partition_of_fp32_groups", "fp32_groups_flat_partition", "fp32_partitioned_groups_flat"
    return next(getattr(engine.optimizer, name) for name in names if hasattr(engine.optimizer, name))


def _gathered(engine: Any) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """At stages 1-3, the same of the whole parameters, by DeepSpeed's address of each one's fragments."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    flat = _partitions(engine)[0]
    shared = _inner(engine).state[flat]
    parts = [key for key, value in shared.items() if isinstance(value, torch.Tensor) and value.shape == flat.shape]
    for parameter in engine.module.parameters():
        if parameter.requires_grad:
            values = {key: value for key, value in shared.items() if key not in parts}  # the count of steps
            values |= {key: safe_get_full_optimizer_state(parameter, key) for key in parts}
            yield safe_get_full_fp32_param(parameter), values


def _scatter(engine: Any, masters: list[torch.Tensor], held: dict[int, dict[str, Any]]) -> None:
    """At stages 1-3, put whole parameters' float32 weights and optimizer values into this rank's shards."""
    from deepspeed import utils

    parameters = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    inner, device = _inner(engine), parameters[0].device
    parts = [key for key, value in held.get(0, {}).items() if getattr(value, "shape", None) == masters[0].shape]
    for flat in _partitions(engine):  # DeepSpeed makes the optimizer's values in a run's first step
        shared = {key: copy.deepcopy(value) for key, value in held.get(0, {}).items() if key not in parts}
        inner.state[flat] = {**shared, **{key: torch.zeros_like(flat) for key in parts}}
    zero3 = engine.zero_optimization_stage() == 3
    if zero3:  # its calls for whole parameters fail where the ranks divide one unevenly
        set_weights, set_value = utils.safe_set_local_fp32_param, utils.safe_set_local_optimizer_state
    else:
        set_weights, set_value = utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    for number, parameter in enumerate(parameters):
        for key in (None, *parts):
            whole = (held[number][key] if key else masters[number]).to(device, torch.float32)
            value = _shard(whole) if zero3 else whole
            set_value(parameter, value, key) if key else set_weights(parameter, value)


def _shard(whole: torch.Tensor) -> torch.Tensor:
    """This rank's share of a parameter at stage 3: equal parts, the last one filled up."""
    size = -(-whole.numel() // dist.get_world_size())
    filled = torch.nn.functional.pad(whole.reshape(-1), (0, size * dist.get_world_size() - whole.numel()))
    return filled[size * dist.get_rank() :][:size]


def gradient_norm(engine: Any) -> float | None:
    """The norm of the last update's gradient where DeepSpeed reduced it in shards; None where there is none."""
    found = engine.get_global_grad_norm()
    return None if found is None else float(found)


def resize(engine: Any, reduction: Reduction, phase: Phase) -> None:
    """Let the updates have a phase's size; call between two updates, at ZeRO stage 0."""
    if reduction.slots != phase.slots:
        engine.set_train_batch_size(phase.effective_batch)
        reduction.resize(phase.slots)


def learning_rate(engine: Any) -> float:
    """The rate that the next update will use."""
    return engine.optimizer.param_groups[0]["lr"]


def set_rate(engine: Any, plan: Plan, progress: float, gain: float) -> None:
    """Set the rate of the coming update where a gain is measured: the gain times the schedule's rate at `progress`."""
    scheduled = plan.optimizer_rate
    if engine.lr_scheduler is not None:
        engine.lr_scheduler.step(int(progress))  # from its first step on: see begin_schedule
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
