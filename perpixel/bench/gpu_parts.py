"""What is measured on a GPU, part by part; each yields its rows as soon as they are there.

Nothing here needs more than torch, timm, numpy and scipy. ``tiny`` sizes prove on any device that a part runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perpixel.bench.contest import Contender, contest
from perpixel.bench.crf import PARAMETERS, make_problem
from perpixel.bench.forward import forward_row
from perpixel.bench.fused_ops import ROWS as FUSED_ROWS
from perpixel.bench.fused_ops import fused_row, fused_targets
from perpixel.bench.peers import gmacs_of
from perpixel.bench.process_memory import peak_on_device
from perpixel.bench.results import Row, limit, measured_row, row_of
from perpixel.bench.roofline import Rates, measure_rates, numbers, rate_rows, share, synchronise
from perpixel.bench.training_step import training_row
from perpixel.engine.precision import autocast
from perpixel.inference.dense_crf import DENSE_CRFS, dense_crf
from perpixel.inference.folding import fold_batch_norm
from perpixel.models import create_model
from perpixel.ops.fused_argmax import fused_argmax
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing

__all__ = ["PARTS", "Part", "Place", "gpu_targets"]

LEAST_SPEED, MOST_MEMORY, LEAST_FRAMES = 2.5, 0.5, 300.0
ICNET_CLASSES = 19
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Place:
    """Where a part runs and for how long."""

    device: torch.device
    seconds: float
    tiny: bool = False
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - (time.perf_counter() - self.started)

    def rates(self) -> Rates:
        """Returns the device's rates, measured briefly."""
        return measure_rates(self.device, seconds=0.01 if self.tiny else 0.1, side=256 if self.tiny else None)

    @property
    def rounds(self) -> int:
        """Rounds at most; the budget decides."""
        return 1 if self.tiny else 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """A function that yields rows, and the seconds that it gets."""

    run: Callable[[Place], Iterator[Row]]
    seconds: float
    summary: str


def roofline(place: Place) -> Iterator[Row]:
    """Rates of the device."""
    yield from rate_rows([place.rates() for _ in range(1 if place.tiny else 3)])


def dfn(place: Place) -> Iterator[Row]:
    """DFN's training step against the published forward and losses in TF32, eager, then compiled."""
    network = "dfn_resnet18" if place.tiny else "dfn_resnet101"
    rates = place.rates()
    for form in ("perpixel, bf16", "perpixel, compiled, bf16"):
        if form != "perpixel, bf16" and (place.tiny or place.left < 60):
            continue
        contenders = [f"{network}: peer, tf32", f"{network}: {form}"]
        spec = {"contenders": contenders, "fmt": "bf16", "side": 64 if place.tiny else 512, "device": str(place.device)}
        name = f"DFN ResNet-101, training, {form.removeprefix('perpixel, ')}"
        yield measured_row(
            name,
            partial(_training, name, spec, place, rates, contenders[1]),
            targets=_training_limits("", {}),
        )


def icnet(place: Place) -> Iterator[Row]:
    """ICNet of half width, one image at a time, as it is, folded, and as a recorded CUDA graph."""
    yield measured_row(
        "ICNet half width, 1024x2048, batch 1",
        partial(_icnet, place, place.rates()),
        targets=[_frames_limit(None)],
    )


def pspnet(place: Place) -> Iterator[Row]:
    """PSPNet on ResNet-50: inference, and a training step."""
    yield from _network(place, "pspnet_resnet50", "PSPNet ResNet-50", train=True)


def hrnet(place: Place) -> Iterator[Row]:
    """HRNet-W18: inference."""
    yield from _network(place, "hrnet_w18", "HRNet-W18", train=False)


def fused_ops(place: Place) -> Iterator[Row]:
    """Upsampling with loss or argmax in one."""
    rates = place.rates()
    share_of_budget = place.seconds / (2 * len(FUSED_ROWS))
    for name, stated in FUSED_ROWS.items():
        size = (64, 64) if place.tiny else stated["size"]
        spec = {**stated, "size": size, "device": str(place.device)}
        run = partial(fused_row, name, rounds=place.rounds, rates=rates, threads=1, budget_s=share_of_budget)
        yield measured_row(name, partial(_at_largest_batch, run, spec, place))


def crf(place: Place) -> Iterator[Row]:
    """The dense CRF on the device and on its host."""
    height, width, classes = (40, 60, 5) if place.tiny else (375, 500, 21)
    yield measured_row(f"dense CRF, {width}x{height}, {classes} classes", partial(_crf, place, height, width, classes))


def transforms(place: Place) -> Iterator[Row]:
    """Colour jitter and normalisation of a batch, folded and one step after the other."""
    yield measured_row("jitter and normalise, 32 images of 512x512", partial(_transforms, place, place.rates()))


PARTS = {
    "roofline": Part(run=roofline, seconds=15, summary="matrix products, convolutions, copies"),
    "dfn": Part(run=dfn, seconds=150, summary="DFN-R101 training step, 512x512, batch 32"),
    "fused_ops": Part(run=fused_ops, seconds=60, summary="upsampling with loss or argmax in one"),
    "icnet": Part(run=icnet, seconds=40, summary="ICNet half width, 1024x2048, batch 1"),
    "pspnet": Part(run=pspnet, seconds=45, summary="PSPNet-50, inference and training"),
    "hrnet": Part(run=hrnet, seconds=35, summary="HRNet-W18, inference"),
    "crf": Part(run=crf, seconds=30, summary="dense CRF"),
    "transforms": Part(run=transforms, seconds=15, summary="jitter and normalisation"),
}
"""Name -> part, in the order in which they run; together less than seven minutes, the rest is for starting."""


def gpu_targets() -> list[tuple[str, dict[str, Any]]]:
    """Returns the targets of the GPU, by row, for a page without results of one."""
    training = [("DFN ResNet-101, training, 512x512, batch 32", found) for found in _training_limits("", {})]
    fused = [("fused operations", found) for found in fused_targets("cuda")]
    return [*training, ("ICNet half width, 1024x2048, batch 1", _frames_limit(None)), *fused]


def _at_largest_batch(run: Callable[[dict[str, Any]], Row], spec: Mapping[str, Any], place: Place) -> Row:
    """Runs with 32 images, or with half as many until all contenders fit; the row states the batch."""
    batches = (2,) if place.tiny else (32, 16, 8, 4)
    for batch in batches:
        try:
            return run({**spec, "batch": batch})
        except torch.OutOfMemoryError:
            if batch == batches[-1]:
                raise
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    raise AssertionError("unreachable: the last batch returns or raises")


def _training(name: str, spec: dict[str, Any], place: Place, rates: Rates, ours: str) -> Row:
    run = partial(
        training_row,
        rounds=place.rounds,
        rates=rates,
        threads=torch.get_num_threads(),
        budget_s=place.seconds / 5,
        limits=partial(_training_limits, ours),
    )
    return _at_largest_batch(lambda full: run(name, full), spec, place)


def _training_limits(ours: str, rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Targets against the first contender."""
    speed = memory = None
    if ours in rows:
        reference = next(iter(rows.values()))
        speed = rows[ours]["times_as_fast"]["per_round"]
        memory = rows[ours]["peak_mb"] / reference["peak_mb"]
    return [
        limit("images/s, as a multiple of the published code in TF32", speed, LEAST_SPEED, sense="at least"),
        limit("peak memory, as a share of the published code's", memory, MOST_MEMORY, sense="at most"),
    ]


def _network(place: Place, key: str, title: str, *, train: bool) -> Iterator[Row]:
    rates, threads = place.rates(), torch.get_num_threads()
    side = 64 if place.tiny else 512
    base = {"network": key, "side": side, "device": str(place.device)}
    forms = ["peer, tf32", "perpixel, bf16", "perpixel, bf16 optimized"]
    each = place.seconds / (4 if train else 3)
    options: dict[str, Any] = {"rounds": place.rounds, "rates": rates, "threads": threads, "budget_s": each}
    for batch in (1, 2) if place.tiny else (1, 8):
        name = f"{title}, batch {batch}"
        spec = {**base, "forms": forms, "batch": batch}
        yield _without_limits(measured_row(name, partial(forward_row, name, spec, memory=False, **options)))
    if train:
        name = f"{title}, training, bf16"
        contenders = [f"{key}: peer, tf32", f"{key}: perpixel, bf16"]
        stated = {"contenders": contenders, "fmt": "bf16", "side": side, "device": str(place.device)}
        yield measured_row(name, partial(_at_largest_batch, partial(_train, name, options), stated, place))


def _train(name: str, options: dict[str, Any], spec: dict[str, Any]) -> Row:
    return training_row(name, spec, **options)


def _without_limits(row: Row) -> Row:
    """The limits of inference are those of the CPU."""
    return {**row, "limits": []}


def _icnet(place: Place, rates: Rates) -> Row:
    device = place.device
    size = (64, 128) if place.tiny else (1024, 2048)
    network = create_model("icnet", num_classes=ICNET_CLASSES).eval()
    gmacs = gmacs_of(network, (1, 3, *size))
    network = network.to(device).to(memory_format=torch.channels_last)
    folded = fold_batch_norm(network).network
    images = torch.randn(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    align = network.align_corners
    forms: dict[str, Callable[[], Callable[[], Tensor]]] = {
        "perpixel, tf32": lambda: partial(_logits, network, images, "tf32"),
        "perpixel, bf16": lambda: partial(_logits, network, images, "bf16"),
        "perpixel, bf16 folded": lambda: partial(_logits, folded, images, "bf16"),
    }
    if device.type == "cuda":
        forms["perpixel, bf16 folded, CUDA graph"] = lambda: _recorded(partial(_logits, folded, images, "bf16"))
    offered = [
        Contender(name=name, prepare=make, run=lambda logits: fused_argmax(logits(), size, align_corners=align))
        for name, make in forms.items()
    ]
    found = contest(offered, rounds=5 * place.rounds, warmup=3, sync=synchronise(device), budget_s=0.6 * place.seconds)
    rows = found.rows(offered[0].name)
    for name, row in rows.items():
        fmt = "tf32" if "tf32" in name else "bf16"
        seconds = found.median(name)
        row |= {"images_per_s": 1 / seconds, "share_of_matmul": share(gmacs, seconds, rates.of("matmul", fmt))}
    best = max(row["images_per_s"] for row in rows.values())
    title = "ICNet half width, 1024x2048, batch 1"
    return row_of(title, rows, reference=offered[0].name, values={"gmacs": gmacs}, limits=[_frames_limit(best)])


def _frames_limit(value: float | None) -> dict[str, Any]:
    return limit("frames per second of the fastest form", value, LEAST_FRAMES, sense="at least", unit="frames/s")


def _logits(network: nn.Module, images: Tensor, fmt: str) -> Tensor:
    with torch.no_grad(), numbers(fmt), autocast(images.device, "bf16" if fmt == "bf16" else "fp32"):
        logits: Tensor = network(images).logits
    return logits


def _recorded(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Returns what replays the kernels of ``run`` without launching them one by one."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.clear_autocast_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def _crf(place: Place, height: int, width: int, classes: int) -> Row:
    image, probabilities = make_problem(height, width, classes)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    unary, stated = torch.from_numpy(probabilities), DENSE_CRFS[PARAMETERS]
    places = {"perpixel, host": torch.device("cpu"), f"perpixel, {place.device.type}": place.device}
    offered = [
        Contender(
            name=name,
            prepare=partial(lambda device: (unary.to(device), pixels.to(device)), device),
            run=lambda state: dense_crf(state[0], state[1], stated),
        )
        for name, device in places.items()
    ]
    classes_of = [torch.as_tensor(o.run(o.prepare())).argmax(0).cpu() for o in offered]
    found = contest(offered, rounds=place.rounds, warmup=0, sync=synchronise(place.device), budget_s=place.seconds / 2)
    same = float((classes_of[0] == classes_of[1]).float().mean())
    name = f"dense CRF, {width}x{height}, {classes} classes"
    return row_of(name, found.rows(offered[0].name), reference=offered[0].name, values={"same_class": same})


def _transforms(place: Place, rates: Rates) -> Row:
    batch, side = (2, 64) if place.tiny else (32, 512)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, side, side), generator=draw, dtype=torch.uint8)
    jitter = torch.empty(batch, 3).uniform_(0.6, 1.4, generator=draw)
    state = (images.to(place.device).contiguous(memory_format=torch.channels_last), jitter.to(place.device))
    offered = [
        Contender(name="step by step", prepare=lambda: state, run=lambda s: _step_by_step(*s)),
        Contender(name="perpixel", prepare=lambda: state, run=lambda s: normalize(s[0], Preprocessing(), jitter=s[1])),
    ]
    difference = float((_step_by_step(*state) - normalize(state[0], Preprocessing(), jitter=state[1])).abs().max())
    found = contest(
        offered, rounds=5 * place.rounds, warmup=3, sync=synchronise(place.device), budget_s=place.seconds / 2
    )
    rows = found.rows(offered[0].name)
    for contender in offered:
        rows[contender.name]["share_of_copy"] = images.numel() * 5 / found.median(contender.name) / rates.copy
        if place.device.type == "cuda":
            rows[contender.name]["peak_mb"] = peak_on_device(contender, place.device, above="run")
    name = "jitter and normalise, 32 images of 512x512"
    return row_of(name, rows, reference=offered[0].name, values={"largest_difference": difference})


def _step_by_step(images: Tensor, jitter: Tensor) -> Tensor:
    """Brightness, contrast, saturation, clamp and normalisation, each an operation of its own."""
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in jitter.unbind(1))
    x = images.float() / 255 * brightness
    x = contrast * x + (1 - contrast) * _grey(x).mean((1, 2, 3), keepdim=True)
    x = (saturation * x + (1 - saturation) * _grey(x)).clamp(0, 1)
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (x - mean) / std


def _grey(x: Tensor) -> Tensor:
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
