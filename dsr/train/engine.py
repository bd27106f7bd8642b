"""DeepSpeed, which only this file imports: the process group, the engine, its learning rate and its state."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from dsr.train import optim
from dsr.train.gradients import ExactReduction, Reduction, StockReduction

if TYPE_CHECKING:
    from dsr.config import Experiment
    from dsr.scaling.plan import Phase, Plan


def start(timeout_seconds: float = 1800) -> torch.device:
    """Join the process group (gloo on CPU, NCCL on CUDA) and make this rank's arithmetic deterministic."""
    cuda = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it compiles for minutes, and gloo does not need it
    deepspeed.utils.logger.setLevel("ERROR")
    torch.use_deterministic_algorithms(True)
    # otherwise ZeRO 2 fills its 2 GB bucket in every update
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


def _keep_memory() -> None:
    """Make glibc keep freed memory: gradients come and go, and fresh pages cost more than adding the gradients."""
    with contextlib.suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, its largest value
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def build(
    network: torch.nn.Module, config: dict[str, Any], experiment: Experiment, plan: Plan
) -> tuple[Any, Reduction]:
    """The DeepSpeed engine around `network`, and how its gradients are reduced.

    `config` is the content of deepspeed.json. Where the run is exact, the slot tree replaces the engine's
    allreduce_gradients, which it calls after every backward.
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
    if engine.bfloat16_enabled() and not _is_sharded(engine):
        _undo_first_step(engine, parameters)
    if not experiment.exact:
        return engine, StockReduction(engine, plan.slots)
    reduction = ExactReduction(engine, parameters, plan.slots, experiment.clipping)
    engine.allreduce_gradients = reduction.reduce
    if _is_sharded(engine):
        for hook in engine.optimizer._grad_acc_hooks:  # they would reduce the gradients of every backward
            hook.remove()
        engine.allreduce_gradients = functools.partial(_reduce_and_cut, engine, reduction)
    engine.zero_grad = reduction.zero_grad  # DeepSpeed's walks through all modules in every update
    if not (engine.flops_profiler_enabled() or engine.wall_clock_breakdown()):
        engine.module_forward_pre_hook.remove()  # they serve only those two, fp16 and ZeRO 3
        engine.module_forward_post_hook.remove()
    return engine, reduction


def _undo_first_step(engine: Any, parameters: list[torch.nn.Parameter]) -> None:
    """Undo what DeepSpeed's bf16 optimizer does at stage 0 when it is built: a step, with gradients of zero.

    It counts, for Adam's bias correction and for weight decay; at stages 1 to 3 there is none.
    """
    _inner(engine).state.clear()
    with torch.no_grad():
        for master, parameter in zip(_masters(engine), parameters, strict=True):
            master.copy_(parameter)


def _reduce_and_cut(engine: Any, reduction: ExactReduction) -> None:
    """At stages 1 and 2, reduce as at stage 0; ZeRO then cuts this rank's shard out of the whole gradients."""
    reduction.reduce()
    if engine.is_gradient_accumulation_boundary():
        zero = engine.optimizer
        for group, parameters in enumerate(zero.params_in_partition):
            zero.all_grad_tensors[group] = zero.get_all_grad_tensors(parameters, zero.gradient_accumulation_dtype)
        zero.finalize_gradient_accumulation_boundary()  # averaged_gradients, which its step reads


def begin_schedule(scheduler: Any) -> None:
    """Make a schedule that a rule has changed begin with its first step in the first update.

    DeepSpeed plays one update before it: WarmupCosineLR at a rate of 0, the others at their minimum, twice. The user's
    own schedule is left as DeepSpeed plays it, but a weak run has too few updates to lose one.
    """
    scheduler.step(0)


def weights(engine: Any) -> dict[str, torch.Tensor]:
    """The network's parameters and lasting buffers by name, on the CPU; every rank must call it (ZeRO 3 gathers)."""
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    with deepspeed.zero.GatheredParameters(list(parameters.values()), enabled=engine.zero_optimization_stage() == 3):
        tensors = parameters | _buffers(engine.module)
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _buffers(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a network's state holds, by name."""
    lasting = network.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in network.named_buffers() if name in lasting}


State = tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]  # {"network", "optimizer", ...} -> tensors, and JSON


def state(engine: Any) -> State:
    """All that a resumed run needs, whole at every ZeRO stage: tensors by name on the CPU, and plain JSON values.

    "network" holds the weights and buffers, "optimizer" the optimizer's tensors under NUMBER.KEY, with the number of
    their parameter, and "master" the float32 weights where the network's are bf16. Every rank must call it, since
    shards are gathered.
    """
    inner = _inner(engine)
    tensors: dict[str, dict[str, torch.Tensor]] = {"network": weights(engine), "optimizer": {}}
    scalars: dict[str, dict[str, Any]] = {}
    for number, (master, values) in enumerate(_gathered(engine) if _is_sharded(engine) else _held(engine)):
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
    """Restore what `state` returned, on any number of ranks; every rank must call it."""
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    zero3 = engine.zero_optimization_stage() == 3
    with (
        torch.no_grad(),
        deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0, enabled=zero3),
    ):
        for name, parameter in parameters.items():
            parameter.copy_(tensors["network"][name])
        for name, buffer in _buffers(engine.module).items():
            if name in tensors["network"]:  # older checkpoints have none
                buffer.copy_(tensors["network"][name])
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
        ]  # the numbers of the parameters are this optimizer's, the rest is what was saved
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
    """At stage 0, the float32 weights that the optimizer updates, one tensor per parameter."""
    return [parameter for group in _inner(engine).param_groups for parameter in group["params"]]


def _held(engine: Any) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """At stage 0, each parameter's float32 weights and its optimizer's values."""
    for master in _masters(engine):
        yield master, _inner(engine).state[master]


def _partitions(engine: Any) -> list[torch.Tensor]:
    """At stages 1-3, the flat float32 shards that this rank's optimizer updates."""
    names = "single_partition_of_fp32_groups", "fp32_groups_flat_partition", "fp32_partitioned_groups_flat"
    return next(getattr(engine.optimizer, name) for name in names if hasattr(engine.optimizer, name))


def _gathered(engine: Any) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """At stages 1-3, the same for whole parameters, gathered through DeepSpeed's addresses of their fragments."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    flat = _partitions(engine)[0]
    shared = _inner(engine).state[flat]
    parts = [key for key, value in shared.items() if isinstance(value, torch.Tensor) and value.shape == flat.shape]
    for parameter in engine.module.parameters():
        if parameter.requires_grad:
            values = {key: value for key, value in shared.items() if key not in parts}  # the number of steps
            values |= {key: safe_get_full_optimizer_state(parameter, key) for key in parts}
            yield safe_get_full_fp32_param(parameter), values


def _scatter(engine: Any, masters: list[torch.Tensor], held: dict[int, dict[str, Any]]) -> None:
    """At stages 1-3, write the float32 weights and optimizer values of whole parameters into this rank's shards."""
    from deepspeed import utils

    parameters = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    inner, device = _inner(engine), parameters[0].device
    parts = [key for key, value in held.get(0, {}).items() if getattr(value, "shape", None) == masters[0].shape]
    for flat in _partitions(engine):  # DeepSpeed makes the optimizer's values in a run's first step
        shared = {key: copy.deepcopy(value) for key, value in held.get(0, {}).items() if key not in parts}
        inner.state[flat] = {**shared, **{key: torch.zeros_like(flat) for key in parts}}
    zero3 = engine.zero_optimization_stage() == 3
    if zero3:  # its functions for whole parameters fail where the ranks do not divide one evenly
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
    """This rank's share of a parameter at stage 3: equal parts, the last one padded."""
    size = -(-whole.numel() // dist.get_world_size())
    filled = torch.nn.functional.pad(whole.reshape(-1), (0, size * dist.get_world_size() - whole.numel()))
    return filled[size * dist.get_rank() :][:size]


def gradient_norm(engine: Any) -> float | None:
    """The norm of the last update's gradient where DeepSpeed reduced it in shards; None where it has none."""
    value = engine.get_global_grad_norm()
    return None if value is None else float(value)


def resize(engine: Any, reduction: Reduction, phase: Phase) -> None:
    """Give the coming updates the size of a phase; call between two updates, at ZeRO stage 0."""
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
        engine.lr_scheduler.step(int(progress))  # it begins with its first step: see begin_schedule
        scheduled = engine.lr_scheduler.get_last_lr()[0]
    for group in engine.optimizer.param_groups:
        group["lr"] = gain * scheduled


def broadcast_json(value: Any) -> Any:
    """Rank 0's JSON value on every rank, since only rank 0 needs to see the run's folder."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_state(state: State | None, device: torch.device) -> State | None:
    """Rank 0's `state`, or None, on every rank, with the tensors on the CPU."""
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
    """The source of all randomness on a device; torch.manual_seed seeds every kind of device and takes longer."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator


def gather_marks(mark: str) -> list[str]:
    """Every rank's mark, in the order of the ranks."""
    marks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(marks, mark)
    return marks


def finish() -> None:
    """Leave the process group, after every rank has reached this point."""
    dist.barrier()
    dist.destroy_process_group()
