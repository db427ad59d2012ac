"""One step of training: forward, loss, backward, update; ours against a plain loop around the same network of others.

Both start from the same weights and take the same images and labels. Ours is `engine.step.train_step` as `perpixel
train` runs it: uint8 images are jittered and normalised within the step, the loss is the network's published one, and
an update that is not finite is held back. The plain loop gets normalised float images, and DFN's gets its border
targets: what it is spared counts for it. It runs channels_last and in the number format of the row, by autocast.

What a second of work brings is images/s times the GMACs of a forward pass, so that networks can be compared; the share
of the matrix rate counts the backward pass as two forward passes. Memory is what the process holds at most in the
second step, above what it held before the network was built: weights, gradients and momentum included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.bench.contest import Contender, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.fresh_process import peaks_in_fresh_processes
from perpixel.bench.peers import CLASSES, PAIRS, Pair, build_ours, build_peer, gmacs_of, scores_in
from perpixel.bench.plain_dfn import PlainDFN, plain_dfn_loss
from perpixel.bench.process_memory import peak_on_device
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.bench.roofline import Rates, measure_rates, numbers, share, synchronise
from perpixel.engine.groups import parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.precision import autocast
from perpixel.engine.step import train_step
from perpixel.losses import SegmentationLoss
from perpixel.ops import border_targets
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing

if TYPE_CHECKING:
    from perpixel.data.batches import Batch

__all__ = ["contenders", "measure", "training_row"]

LEAST_WORK = 1.3
BATCH, SIDE = 4, 256
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4
_RESNET18 = ["unet_resnet18: peer", "unet_resnet18: perpixel", "dfn_resnet18: peer", "dfn_resnet18: perpixel"]
ROWS: dict[str, dict[str, Any]] = {
    "U-Net and DFN on ResNet-18, bf16": {
        "fmt": "bf16",
        "contenders": _RESNET18,
    },
    "U-Net and DFN on ResNet-18, fp32": {
        "fmt": "fp32",
        "contenders": _RESNET18,
    },
    **{
        f"{title}, bf16": {"fmt": "bf16", "contenders": [f"{name}: peer", f"{name}: perpixel"]}
        for name, title in (
            ("deeplab_v3_resnet50", "DeepLab v3 ResNet-50"),
            ("deeplab_v3plus_resnet50", "DeepLab v3+ ResNet-50"),
            ("pspnet_resnet50", "PSPNet ResNet-50"),
            ("hrnet_w18", "HRNet-W18"),
        )
    },
}
"""Contenders are ``network: who``; the first is the reference."""
TARGET_ROW = "U-Net and DFN on ResNet-18, bf16"


class _Batch(NamedTuple):
    """What a step reads of `data.batches.Batch`, which a machine without torchvision cannot import."""

    images: Tensor
    target: Tensor
    jitter: Tensor
    names: tuple[str, ...]


def contenders(spec: Mapping[str, Any]) -> list[Contender]:
    """Returns the loops of a row.

    Args:
        spec: ``contenders`` (names as in ``ROWS``), ``fmt``, ``batch``, ``side``, ``device``; a name that ends with
            ``perpixel, compiled`` trains the compiled network, ``peer, tf32`` and the like a format of its own.
    """
    return [_contender(name, spec) for name in spec["contenders"]]


def training_row(
    name: str,
    spec: Mapping[str, Any],
    *,
    rounds: int,
    rates: Rates,
    threads: int,
    budget_s: float | None = None,
    limits: Callable[[Mapping[str, Any]], list[dict[str, Any]]] = lambda _: [],
) -> Row:
    """Times and weighs the loops of a row; the first is the reference."""
    device = torch.device(spec["device"])
    offered = contenders(spec)
    held = _memory(offered, spec, threads)
    found = contest(offered, rounds=rounds, warmup=2, sync=synchronise(device), budget_s=budget_s)
    reference = offered[0].name
    rows = found.rows(reference)
    size = (spec["batch"], 3, spec["side"], spec["side"])
    for loop, row in rows.items():
        gmacs, fmt = gmacs_of(build_ours(PAIRS[_network(loop)]), size), _format(loop, spec)
        seconds = found.median(loop)
        row |= {
            "images_per_s": spec["batch"] / seconds,
            "work": gmacs / seconds,
            "share_of_matmul": share(gmacs, seconds, rates.of("matmul", fmt), training=True),
            "share_of_convolution": share(gmacs, seconds, rates.of("convolution", fmt), training=True),
            **held[loop],
        }
    for row in rows.values():
        row["times_the_work"] = row["work"] / rows[reference]["work"]
    values = {"batch": spec["batch"], "side": spec["side"], "rates": asdict(rates)}
    return row_of(name, rows, reference=reference, values=values, limits=limits(rows))


def measure(request: Request) -> Report:
    """Measures all rows on the CPU, or on the device that is asked for."""
    threads = use_threads(request.threads)
    chosen = request.chosen(ROWS)
    batch, side = (2, 64) if request.tiny else (BATCH, SIDE)
    rates = measure_rates(request.device, seconds=0.01 if request.tiny else 0.5, side=256 if request.tiny else None)
    report = Report(
        request.json,
        "training_step",
        environment=describe_environment(
            device=request.device, threads=threads, packages=("torchvision", "segmentation-models-pytorch")
        ),
        settings={"batch": batch, "side": side, "classes": CLASSES, "optimizer": "sgd"},
        rounds=request.rounds_or(7),
    )
    for name in chosen:
        spec = {**ROWS[name], "batch": batch, "side": side, "device": request.device}
        limits = _limits if name == TARGET_ROW else _none
        row = measured_row(
            name,
            partial(training_row, name, spec, rounds=report.rounds, rates=rates, threads=threads, limits=limits),
            targets=limits({}),
        )
        request.say_row(report.put(row))
    return report


def _none(_: Mapping[str, Any]) -> list[dict[str, Any]]:
    return []


def _limits(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The targets of the issue: work per second, as a multiple of the plain U-Net's."""
    reference = ROWS[TARGET_ROW]["contenders"][0]
    return [
        limit(
            f"{title}: images/s times GMAC, as a multiple of segmentation_models.pytorch's U-Net trained plainly",
            rows[name]["work"] / rows[reference]["work"] if name in rows else None,
            LEAST_WORK,
            sense="at least",
        )
        for name, title in (("unet_resnet18: perpixel", "U-Net"), ("dfn_resnet18: perpixel", "DFN"))
    ]


def _network(loop: str) -> str:
    return loop.partition(":")[0]


def _format(loop: str, spec: Mapping[str, Any]) -> str:
    """The number format of a loop: its own where its name ends with one, else the row's."""
    last = loop.rpartition(", ")[2]
    return last if last in ("fp32", "tf32", "bf16") else str(spec["fmt"])


def _contender(loop: str, spec: Mapping[str, Any]) -> Contender:
    pair, device = PAIRS[_network(loop)], torch.device(spec["device"])
    fmt = _format(loop, spec)

    def prepare() -> Callable[[], object]:
        images, target = _data(spec, device)
        if ": perpixel" in loop:
            return _our_loop(pair, fmt, images, target, compiled="compiled" in loop)
        return _plain_loop(pair, fmt, images, target, channels_last=fmt != "tf32")

    return Contender(name=loop, prepare=prepare, run=lambda step: step())


def _data(spec: Mapping[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise (B, 3, H, W) uint8 and blocky labels (B, H, W) uint8, a twentieth of them ignored."""
    draw = torch.Generator().manual_seed(0)
    batch, side = spec["batch"], spec["side"]
    images = torch.randint(0, 256, (batch, 3, side, side), generator=draw, dtype=torch.uint8)
    cells = torch.randint(0, CLASSES, (batch, 1, 8, 8), generator=draw).float()
    target = F.interpolate(cells, (side, side), mode="nearest")[:, 0].to(torch.uint8)
    target[torch.rand(target.shape, generator=draw) < 0.05] = 255
    return images.to(device).contiguous(memory_format=torch.channels_last), target.to(device)


def _our_loop(pair: Pair, fmt: str, images: Tensor, target: Tensor, *, compiled: bool) -> Callable[[], object]:
    network = build_ours(pair).to(images.device).to(memory_format=torch.channels_last).train()
    fused = {"fused": True} if "fused" in inspect.signature(SegmentationLoss).parameters else {}
    criterion = SegmentationLoss(
        network.default_terms(), num_classes=CLASSES, align_corners=network.align_corners, **fused
    )
    groups = parameter_groups(network, base_lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    optimizer = create_optimizer("sgd", groups, lr=LEARNING_RATE, momentum=MOMENTUM)
    called = torch.compile(network, dynamic=False) if compiled else network
    batch = cast("Batch", _Batch(images, target, torch.ones(len(images), 3, device=images.device), ()))

    def step() -> object:
        with numbers(fmt):
            return train_step(
                called,
                criterion,
                [batch],
                optimizer,
                preprocessing=network.preprocessing,
                precision="bf16" if fmt == "bf16" else "fp32",
                channels_last=True,
            )

    return step


def _plain_loop(pair: Pair, fmt: str, images: Tensor, target: Tensor, *, channels_last: bool) -> Callable[[], object]:
    order = torch.channels_last if channels_last else torch.contiguous_format
    network = build_peer(pair).to(images.device).to(memory_format=order).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    x = normalize(images, Preprocessing()).contiguous(memory_format=order)
    labels, borders = target.long(), border_targets(target)

    def step() -> object:
        with numbers(fmt):
            with autocast(x.device, "bf16" if fmt == "bf16" else "fp32"):
                output = network(x)
                loss = _plain_loss(network, output, labels, borders)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            return loss

    return step


def _plain_loss(network: nn.Module, output: Any, labels: Tensor, borders: Tensor) -> Tensor:
    if isinstance(network, PlainDFN):
        return plain_dfn_loss(output, labels, borders)
    return F.cross_entropy(scores_in(output), labels, ignore_index=255)


def _memory(offered: list[Contender], spec: Mapping[str, Any], threads: int) -> dict[str, dict[str, Any]]:
    device = torch.device(spec["device"])
    if device.type == "cuda":
        return {found.name: {"peak_mb": peak_on_device(found, device)} for found in offered}
    names = [found.name for found in offered]
    return peaks_in_fresh_processes("perpixel.bench.training_step", spec, names, above="prepare", threads=threads)
