"""One network that several processes train: copies that share gradients (DDP) or slices of the weights (FSDP2).

With a batch split over the processes and losses divided by shared divisors, an update is that of one process with the
whole batch, to rounding. Batch norm that trains is the exception: without SyncBatchNorm it sees its own part alone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from perpixel.engine.distributed import World
from perpixel.engine.precision import PRECISIONS
from perpixel.engine.step import Criterion, Forward
from perpixel.errors import ConfigError, InvalidValue, nearest
from perpixel.losses.reduction import shared_divisors

__all__ = ["KINDS", "Parallel", "Probe", "like", "local", "parallelise", "probe", "synchronise_batch_norm", "whole"]

KINDS = ("auto", "ddp", "fsdp2")
_SMALL_BATCH = 16
"""Images per process below which statistics of batch norm are worth sharing."""
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


@dataclass(frozen=True)
class Parallel:
    """How a network trains: what a step calls, and how its weights become whole again."""

    network: nn.Module
    """Holds the parameters that the optimizer changes; slices of them under FSDP2."""
    forward: Forward
    world: World
    kind: str = "one process"
    replica: nn.Module | None = None
    """The network without slices; None where ``network`` is whole."""
    unequal_buffers: bool = False
    """Whether running statistics differ between processes until `share_buffers`."""

    @contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        """In this block losses are divided by what all processes have; gradients are shared by the ``last`` batch."""
        if self.world.size == 1:
            yield
            return
        quiet: AbstractContextManager[Any] = nullcontext()
        if isinstance(self.forward, DistributedDataParallel) and not last:
            quiet = self.forward.no_sync()
        elif self.kind == "fsdp2":
            network: Any = self.network
            network.set_requires_gradient_sync(last)
        with quiet, shared_divisors(self.world.mean, processes=self.world.size):
            yield

    @torch.no_grad()
    def share_buffers(self) -> None:
        """Gives all processes the mean of the running statistics that each has gathered on its own."""
        if not self.unequal_buffers:
            return
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        for buffer in buffers:
            buffer.copy_(self.world.mean(buffer))

    def delivered(self) -> nn.Module:
        """Returns the network with whole, plain weights; under FSDP2 a copy, which all processes make together."""
        self.share_buffers()
        if self.replica is None:
            return self.network
        self.replica.load_state_dict({name: whole(value) for name, value in self.network.state_dict().items()})
        return self.replica


class Probe(NamedTuple):
    """What one forward pass tells of a network."""

    unused: tuple[str, ...]
    """Parameters that train and that the loss does not depend on."""
    called: frozenset[str]
    """Modules whose ``forward`` was called, by name."""


def parallelise(
    network: nn.Module,
    world: World,
    *,
    kind: str = "auto",
    precision: str = "fp32",
    probed: Probe | None = None,
    batch_norm_trains: bool = False,
) -> Parallel:
    """Makes a network one that all processes train; must come before its optimizer is built.

    Args:
        network: On its device, the same in all processes.
        world: One process needs nothing.
        kind: ``ddp``, a copy in every process; ``fsdp2``, slices of weights, gradients and optimizer state, gathered
            stage by stage, for networks that do not fit otherwise; ``auto`` takes ddp.
        precision: Of the forward pass; under fsdp2 networks without batch norm gather their weights in it.
        probed: Needed where parameters may be unused, and for fsdp2.
        batch_norm_trains: Whether running statistics are gathered.

    Raises:
        InvalidValue: the kind is unknown.
        ConfigError: fp16 is asked for with fsdp2.
    """
    if kind not in KINDS:
        raise InvalidValue(f"parallel is one of {', '.join(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    if world.size == 1:
        return Parallel(network, network, world)
    if kind == "fsdp2":
        return _sliced(network, world, precision, probed)
    synchronised = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    copies = DistributedDataParallel(
        network,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        **_OWN_BUFFERS,  # frozen ones are equal, synchronised ones too; others are averaged when they count
        gradient_as_bucket_view=True,
        find_unused_parameters=probed is not None and bool(probed.unused),
    )
    return Parallel(network, copies, world, "ddp", unequal_buffers=batch_norm_trains and not synchronised)


def synchronise_batch_norm(
    network: nn.Module, world: World, *, batch_size: int, trains: bool
) -> tuple[str, str] | None:
    """Turns batch norm into one that sees the whole batch, where that is possible and worth its cost.

    Names and values of the state stay, and so do artifacts: a network that is built anew has plain batch norm.

    Args:
        network: Changed in place.
        world: Its device decides what is possible.
        batch_size: Images per process.
        trains: Whether running statistics are gathered.

    Returns:
        Choice and reason; None where there is nothing to choose.
    """
    if world.size == 1 or not trains or not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return None
    if world.device.type != "cuda":
        return (
            "each process its own part",
            f"PyTorch's SyncBatchNorm needs CUDA; batch norm sees {batch_size} images at a time and not all, so the "
            "run is not that of one process. freeze_batch_norm = true makes them equal",
        )
    if batch_size >= _SMALL_BATCH:
        return "each process its own part", f"{batch_size} images per process are enough for its statistics"
    # timm knows its own batch norms with an activation inside; torch's converter would drop that.
    from timm.layers.norm_act import convert_sync_batchnorm

    convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return "over all processes", f"{batch_size} images per process are few for its statistics"


def probe(network: nn.Module, criterion: Criterion, *, channels: int, size: tuple[int, int]) -> Probe:
    """Runs a copy of the network once on the CPU and looks which parameters and modules take part.

    Args:
        network: In training mode; left as it is.
        criterion: Its loss.
        channels: Image channels.
        size: Crop in pixels.
    """
    trial = copy.deepcopy(network).cpu().train()
    called: set[str] = set()
    for name, module in trial.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    target = torch.zeros((2, *size), dtype=torch.uint8)
    with torch.random.fork_rng(devices=[]):
        loss = criterion(trial(torch.zeros(2, channels, *size)), target).total
    reached = _reached(loss)
    named = [(name, parameter) for name, parameter in trial.named_parameters() if parameter.requires_grad]
    return Probe(tuple(name for name, parameter in named if id(parameter) not in reached), frozenset(called))


def whole(tensor: Tensor) -> Tensor:
    """Returns a sliced tensor put together, which all processes do at once; others as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """Returns this process's slice of a sliced tensor, sharing memory; others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def like(values: Tensor, live: Tensor) -> Tensor:
    """Returns whole values sliced as ``live`` is, on its device."""
    if not hasattr(live, "device_mesh"):
        return values
    from torch.distributed.tensor import distribute_tensor

    sliced: Any = live
    # Without a source each process cuts its own slice, and none waits for another.
    return distribute_tensor(values.to(live.device), sliced.device_mesh, sliced.placements, src_data_rank=None)


def _sliced(network: nn.Module, world: World, precision: str, probed: Probe | None) -> Parallel:
    """Slices the weights over the processes, each stage of the backbone and each head on its own."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if precision == "fp16":
        raise ConfigError("parallel = fsdp2 with precision = fp16 would scale each slice on its own; take bf16")
    normed = any(isinstance(module, _BatchNorm) for module in network.modules())
    gathered = None if normed or precision == "fp32" else PRECISIONS[precision]
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32)
    replica = copy.deepcopy(network).eval()
    mesh = init_device_mesh(world.device.type, (world.size,))
    for unit in stages(network, probed):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    trains = any(isinstance(module, _BatchNorm) and module.training for module in network.modules())
    return Parallel(network, network, world, "fsdp2", replica=replica, unequal_buffers=trains)


def stages(network: nn.Module, probed: Probe | None) -> list[nn.Module]:
    """Returns the modules that are gathered one after the other: stages of the backbone, and the other parts.

    Only what is called as a module can be: its weights are gathered when the call begins.
    """
    found: list[nn.Module] = []
    for name, child in network.named_children():
        found.extend(_opened(name, child, probed) if name == "backbone" else _callable(name, child, probed))
    return found


def _opened(name: str, module: nn.Module, probed: Probe | None) -> list[nn.Module]:
    """Returns a trunk's stages: the children of the first module on the way down that has several with weights."""
    children = [
        (f"{name}.{key}", child) for key, child in module.named_children() if any(True for _ in child.parameters())
    ]
    if len(children) == 1:
        return _opened(*children[0], probed) or _callable(*children[0], probed)
    return [unit for key, child in children for unit in _callable(key, child, probed)]


def _callable(name: str, module: nn.Module, probed: Probe | None) -> list[nn.Module]:
    weights = any(True for _ in module.parameters())
    return [module] if weights and (probed is None or name in probed.called) else []


def _reached(loss: Tensor) -> set[int]:
    """Returns the ids of the leaf tensors that a loss depends on."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return found
