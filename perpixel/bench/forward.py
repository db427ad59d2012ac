"""Inference: normalised images in, the class of every pixel out, ours against the same network of others.

The reference is the peer as people run it: eager, float32, planar memory, scores enlarged to the image, then argmax.
Ours is the peer's own state dict, imported. Latency is one image of 512x512, throughput a batch of eight. Beside time:
the share of the device's matrix rate, the share of pixels that get the reference's class, and at batch 1 the memory
that a pass adds to the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from perpixel.bench.contest import Contender, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.fresh_process import peaks_in_fresh_processes
from perpixel.bench.peers import PAIRS, Pair, build_ours, build_peer, gmacs_of, scores_in
from perpixel.bench.process_memory import peak_on_device
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.bench.roofline import Rates, measure_rates, numbers, share, synchronise
from perpixel.engine.precision import autocast
from perpixel.errors import InvalidValue, nearest
from perpixel.inference.folding import fold_batch_norm
from perpixel.inference.optimized import optimized_copy
from perpixel.ops.fused_argmax import fused_argmax
from perpixel.types import SegOutput

__all__ = ["FORMS", "Form", "contenders", "forward_row", "measure"]

LEAST_FP32, LEAST_BF16 = 1.4, 3.0
SIDE = 512
WARM_UP_SIDE = 64
BATCHES = {1: 7, 8: 3}
"""Images per run -> rounds."""
THROUGHPUT = ("unet_resnet18", "dfn_resnet18", "deeplab_v3_resnet50")
"""Networks whose batch of eight is timed too."""
MEMORY_OF = ("peer", "perpixel, fp32", "perpixel, bf16", "perpixel, bf16 optimized")


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to run a network."""

    ours: bool
    fmt: Literal["fp32", "tf32", "bf16"] = "fp32"
    channels_last: bool = True
    optimized: bool = False
    """`inference.optimized.optimized_copy`: what a loaded model runs."""
    compiled: bool = False
    """By torch.compile, batch norms folded."""


FORMS = {
    "peer": Form(ours=False, channels_last=False),
    "peer, tf32": Form(ours=False, fmt="tf32", channels_last=False),
    "peer, bf16 channels_last": Form(ours=False, fmt="bf16"),
    "perpixel, fp32": Form(ours=True),
    "perpixel, fp32 optimized": Form(ours=True, optimized=True),
    "perpixel, bf16": Form(ours=True, fmt="bf16"),
    "perpixel, bf16 optimized": Form(ours=True, fmt="bf16", optimized=True),
    "perpixel, fp32 compiled": Form(ours=True, compiled=True),
    "perpixel, bf16 compiled": Form(ours=True, fmt="bf16", compiled=True),
}
"""Ways to run a network."""
_USUAL = tuple(name for name, form in FORMS.items() if not form.compiled and form.fmt != "tf32")


def contenders(spec: Mapping[str, Any]) -> list[Contender]:
    """Returns the forms of a network.

    Args:
        spec: ``network`` (a key of ``PAIRS``), ``forms`` (keys of ``FORMS``), ``batch``, ``side``, ``device``.
    """
    return [_contender(name, PAIRS[spec["network"]], spec) for name in spec["forms"]]


def forward_row(
    name: str,
    spec: Mapping[str, Any],
    *,
    rounds: int,
    rates: Rates,
    threads: int,
    budget_s: float | None = None,
    memory: bool = True,
) -> Row:
    """Times and weighs the forms of a network; the first is the reference."""
    device = torch.device(spec["device"])
    offered = contenders(spec)
    agreement, gmacs = _agreement(offered, spec)
    held = _memory(offered, spec, threads) if memory else {}
    found = contest(offered, rounds=rounds, sync=synchronise(device), budget_s=budget_s)
    reference = offered[0].name
    rows = found.rows(reference)
    for form, row in rows.items():
        fmt, seconds = FORMS[form].fmt, found.median(form)
        row |= {
            "images_per_s": spec["batch"] / seconds,
            "share_of_matmul": share(gmacs, seconds, rates.of("matmul", fmt)),
            "share_of_convolution": share(gmacs, seconds, rates.of("convolution", fmt)),
            "same_class": agreement[form],
            **held.get(form, {}),
        }
    values = {
        "gmacs": gmacs,
        "batch": spec["batch"],
        "side": spec["side"],
        "peer": PAIRS[spec["network"]].peer,
        "rates": asdict(rates),
    }
    return row_of(name, rows, reference=reference, values=values, limits=_limits(rows))


def measure(request: Request) -> Report:
    """Measures all networks, rows named by network and batch."""
    threads = use_threads(request.threads)
    rates = measure_rates(request.device, seconds=0.01 if request.tiny else 0.5, side=256 if request.tiny else None)
    specs = _specs(request)
    chosen = request.chosen(specs)
    report = Report(
        request.json,
        "forward",
        environment=describe_environment(
            device=request.device, threads=threads, packages=("torchvision", "segmentation-models-pytorch")
        ),
        settings={"side": 64 if request.tiny else SIDE, "output": "classes"},
        rounds=request.rounds_or(BATCHES[1]),
    )
    for name in chosen:
        spec = specs[name]
        rounds = request.rounds_or(BATCHES[spec["batch"]])
        row = measured_row(
            name,
            partial(forward_row, name, spec, rounds=rounds, rates=rates, threads=threads, memory=spec["batch"] == 1),
            targets=_limits({}),
        )
        request.say_row(report.put(row))
    return report


def _specs(request: Request) -> dict[str, dict[str, Any]]:
    side = 64 if request.tiny else SIDE
    base = {"side": side, "device": request.device, "forms": list(_USUAL)}
    specs = {f"{name}, batch 1": {**base, "network": name, "batch": 1} for name in PAIRS}
    specs |= {f"{name}, batch 8": {**base, "network": name, "batch": 8} for name in THROUGHPUT}
    return specs


def _contender(name: str, pair: Pair, spec: Mapping[str, Any]) -> Contender:
    if name not in FORMS:
        raise InvalidValue(f"unknown form {name!r}{nearest(name, FORMS, end='.')} Known: {', '.join(FORMS)}")
    form, device = FORMS[name], torch.device(spec["device"])

    def prepare() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        run = _classes_of(pair, form, device)
        return run, _images(spec["batch"], spec["side"], form, device), _images(1, WARM_UP_SIDE, form, device)

    return Contender(name=name, prepare=prepare, run=lambda s: s[0](s[1]), warm=lambda s: s[0](s[2]))


def _classes_of(pair: Pair, form: Form, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns the function from images to classes, in evaluation mode on the device."""
    order = torch.channels_last if form.channels_last else torch.contiguous_format
    if not form.ours:
        peer = build_peer(pair).to(device).to(memory_format=order)
        return _guarded(form, device, lambda images: scores_in(peer(images)).argmax(1))
    network = build_ours(pair).to(device)
    align = network.align_corners
    network = network.to(memory_format=order)
    called: Callable[[Tensor], SegOutput] = network
    if form.compiled:
        called = torch.compile(fold_batch_norm(network).network, dynamic=False)
    elif form.optimized:
        called = optimized_copy(network, precision=_precision(form)).network
    return _guarded(
        form,
        device,
        lambda images: fused_argmax(called(images).logits, (images.shape[2], images.shape[3]), align_corners=align),
    )


def _guarded(form: Form, device: torch.device, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def classes(images: Tensor) -> Tensor:
        with torch.inference_mode(), numbers(form.fmt), autocast(device, _precision(form)):
            return run(images)

    return classes


def _precision(form: Form) -> str:
    return "bf16" if form.fmt == "bf16" else "fp32"


def _images(batch: int, side: int, form: Form, device: torch.device) -> Tensor:
    order = torch.channels_last if form.channels_last else torch.contiguous_format
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return images.to(device).contiguous(memory_format=order)


def _agreement(offered: list[Contender], spec: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Returns per form the share of pixels that get the reference's class, and the network's GMACs per run."""
    pair, side = PAIRS[spec["network"]], spec["side"]
    gmacs = gmacs_of(build_ours(pair), (spec["batch"], 3, side, side))
    classes = {}
    for contender in offered:
        state = contender.prepare()
        classes[contender.name] = torch.as_tensor(contender.run(state)).cpu()
    reference = classes[offered[0].name]
    return {name: float((found == reference).float().mean()) for name, found in classes.items()}, gmacs


def _memory(offered: list[Contender], spec: Mapping[str, Any], threads: int) -> dict[str, dict[str, Any]]:
    device = torch.device(spec["device"])
    if device.type == "cuda":
        return {found.name: {"peak_mb": peak_on_device(found, device)} for found in offered}
    names = [found.name for found in offered if found.name in MEMORY_OF]
    return peaks_in_fresh_processes("perpixel.bench.forward", spec, names, above="run", threads=threads)


def _limits(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets of the issue; where there are several forms of a number format, the fastest counts."""
    limits = []
    for fmt, least in (("fp32", LEAST_FP32), ("bf16", LEAST_BF16)):
        ours = [row for name, row in rows.items() if FORMS[name].ours and FORMS[name].fmt == fmt]
        ratios = [row["times_as_fast"]["per_round"] for row in ours]
        what = f"{fmt}, times as fast as the peer in eager float32"
        limits.append(limit(what, max(ratios, default=None), least, sense="at least"))
    return limits
