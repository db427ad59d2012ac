"""Operations that never build the (B, K, H, W) map, against the forms that do.

*Loss*: the cross-entropies of DFN's four stages (strides 32 to 4), forward and backward; plainly each stage's scores
are interpolated to the image and given to PyTorch's cross-entropy. *Loss at full size*, on the CPU: scores as networks
give them in training, bfloat16 and channels_last; plainly they become float32 and contiguous first. *Argmax*: the class
of every pixel from scores at stride 4 or 8; plainly interpolated, then argmax. Memory is what a run adds to what was
held before it, gradients included. The share of the copy rate counts each score and label read once, and for a loss
once more, with the gradient written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.bench.contest import Contender, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.fresh_process import peaks_in_fresh_processes
from perpixel.bench.process_memory import peak_on_device
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.bench.roofline import Rates, measure_rates, synchronise
from perpixel.ops.full_size_nll import full_size_nll_total
from perpixel.ops.fused_argmax import fused_argmax
from perpixel.ops.upsampled_nll import upsampled_nll_total

__all__ = ["FULL_SIZE_ROWS", "ROWS", "contenders", "fused_row", "fused_targets", "measure"]

LEAST_SPEED = {"cpu": 1.0, "cuda": 2.0}
MOST_MEMORY = 0.15
PLAIN, FUSED = "plain", "perpixel"
LOSS_STRIDES = (32, 16, 8, 4)
ROWS: dict[str, dict[str, Any]] = {
    "loss, DFN's stages, 21 classes": {"op": "loss", "classes": 21, "size": (512, 512), "strides": LOSS_STRIDES},
    "loss, DFN's stages, 150 classes": {"op": "loss", "classes": 150, "size": (512, 512), "strides": LOSS_STRIDES},
    "loss, stride 8, 19 classes": {"op": "loss", "classes": 19, "size": (512, 512), "strides": (8,)},
    "argmax, stride 8, 21 classes": {"op": "argmax", "classes": 21, "size": (512, 512), "strides": (8,)},
    "argmax, stride 8, 150 classes": {"op": "argmax", "classes": 150, "size": (512, 512), "strides": (8,)},
    "argmax, stride 4, 19 classes": {"op": "argmax", "classes": 19, "size": (1024, 2048), "strides": (4,)},
}
FULL_SIZE_ROWS: dict[str, dict[str, Any]] = {
    "loss at full size, 19 classes": {"op": "loss", "classes": 19, "size": (512, 512), "strides": (1,)},
    "loss at full size, 150 classes": {"op": "loss", "classes": 150, "size": (256, 256), "strides": (1,)},
}
"""For the CPU: on other devices both forms are one."""
CPU_BATCH = 2


def contenders(spec: Mapping[str, Any]) -> list[Contender]:
    """Returns the plain and the fused form.

    Args:
        spec: ``op``, ``classes``, ``size`` (H, W), ``strides``, ``batch``, ``device``.
    """
    runs = {"loss": (_plain_loss, _fused_loss), "argmax": (_plain_argmax, _fused_argmax)}[spec["op"]]
    small = {**spec, "size": (64, 64), "batch": 1}
    return [
        Contender(
            name=name,
            prepare=lambda: (_inputs(spec), _inputs(small)),
            run=partial(_on, run, 0),
            warm=partial(_on, run, 1),
        )
        for name, run in zip((PLAIN, FUSED), runs, strict=True)
    ]


def fused_row(
    name: str, spec: Mapping[str, Any], *, rounds: int, rates: Rates, threads: int, budget_s: float | None = None
) -> Row:
    """Times and weighs both forms."""
    device = torch.device(spec["device"])
    offered = contenders(spec)
    held = _memory(offered, spec, threads)
    found = contest(offered, rounds=rounds, warmup=2, sync=synchronise(device), budget_s=budget_s)
    rows = found.rows(PLAIN)
    moved = _bytes_moved(spec)
    for form, row in rows.items():
        row |= {"share_of_copy": moved / found.median(form) / rates.copy, "peak_mb": held[form]}
    values = {"batch": spec["batch"], "difference": _difference(offered), "rates": asdict(rates)}
    return row_of(name, rows, reference=PLAIN, values=values, limits=fused_targets(spec["device"], rows))


def measure(request: Request) -> Report:
    """Measures all rows."""
    threads = use_threads(request.threads)
    rows = ROWS if torch.device(request.device).type == "cuda" else {**ROWS, **FULL_SIZE_ROWS}
    chosen = request.chosen(rows)
    rates = measure_rates(request.device, seconds=0.01 if request.tiny else 0.3, side=256 if request.tiny else None)
    report = Report(
        request.json,
        "fused_ops",
        environment=describe_environment(device=request.device, threads=threads),
        settings={"batch": CPU_BATCH, "tiny": request.tiny},
        rounds=request.rounds_or(9),
    )
    for name in chosen:
        size = (64, 64) if request.tiny else rows[name]["size"]
        spec = {**rows[name], "size": size, "batch": CPU_BATCH, "device": request.device}
        row = measured_row(
            name,
            partial(fused_row, name, spec, rounds=report.rounds, rates=rates, threads=threads),
            targets=fused_targets(request.device),
        )
        request.say_row(report.put(row))
    return report


def _on(run: Callable[[list[Tensor], Tensor], Tensor], which: int, state: tuple[Any, Any]) -> Tensor:
    return run(*state[which])


def _inputs(spec: Mapping[str, Any]) -> tuple[list[Tensor], Tensor]:
    """Scores as networks give them, smooth with some noise, and blocky labels, a twentieth of them ignored."""
    draw = torch.Generator().manual_seed(0)
    (height, width), batch, classes = spec["size"], spec["batch"], spec["classes"]
    coarse = torch.randn(batch, classes, 8, 8, generator=draw) * 4
    scores = []
    for stride in spec["strides"]:
        cells = (-(-height // stride), -(-width // stride))
        smooth = F.interpolate(coarse, cells, mode="bilinear", align_corners=True)
        smooth = smooth + 0.3 * torch.randn(smooth.shape, generator=draw)
        if stride == 1:
            smooth = smooth.to(torch.bfloat16, memory_format=torch.channels_last)
        scores.append(smooth.to(spec["device"]).requires_grad_(spec["op"] == "loss"))
    target = F.interpolate(coarse, (height, width), mode="nearest").argmax(1)
    target[torch.rand(target.shape, generator=draw) < 0.05] = 255
    return scores, target.to(torch.uint8).to(spec["device"])


def _plain_loss(scores: list[Tensor], target: Tensor) -> Tensor:
    size, labels = target.shape[-2:], target.long()
    total = torch.zeros((), device=target.device)
    for score in scores:
        score.grad = None
        if score.shape[-2:] == size:
            enlarged = score.float().contiguous()
        else:
            enlarged = F.interpolate(score, size, mode="bilinear", align_corners=True)
        total = total + F.cross_entropy(enlarged, labels, ignore_index=255)
    torch.autograd.backward(total)
    return total.detach()


def _fused_loss(scores: list[Tensor], target: Tensor) -> Tensor:
    valid = (target != 255).sum()
    total = torch.zeros((), device=target.device)
    for score in scores:
        score.grad = None
        if score.shape[-2:] == target.shape[-2:]:
            total = total + full_size_nll_total(score, target, ignore_index=255) / valid
        else:
            total = total + upsampled_nll_total(score, target, align_corners=True, ignore_index=255) / valid
    torch.autograd.backward(total)
    return total.detach()


@torch.inference_mode()
def _plain_argmax(scores: list[Tensor], target: Tensor) -> Tensor:
    return F.interpolate(scores[0], target.shape[-2:], mode="bilinear", align_corners=True).argmax(1)


@torch.inference_mode()
def _fused_argmax(scores: list[Tensor], target: Tensor) -> Tensor:
    return fused_argmax(scores[0], (target.shape[1], target.shape[2]), align_corners=True)


def _difference(offered: list[Contender]) -> float:
    """Relative difference of losses, or the share of pixels whose class differs."""
    plain, fused = (torch.as_tensor(found.run(found.prepare())).cpu() for found in offered)
    if plain.ndim:
        return float((plain != fused).float().mean())
    return float((plain - fused).abs() / plain.abs())


def _bytes_moved(spec: Mapping[str, Any]) -> float:
    height, width = spec["size"]
    cells = sum(-(-height // stride) * -(-width // stride) for stride in spec["strides"])
    bytes_each = 2 if spec["strides"] == (1,) else 4
    times = 3 if spec["op"] == "loss" else 1
    labels = height * width * (2 * len(spec["strides"]) if spec["op"] == "loss" else 1)
    return float(spec["batch"] * (bytes_each * times * spec["classes"] * cells + labels))


def _memory(offered: list[Contender], spec: Mapping[str, Any], threads: int) -> dict[str, float]:
    device = torch.device(spec["device"])
    if device.type == "cuda":
        return {found.name: peak_on_device(found, device, above="run") for found in offered}
    held = peaks_in_fresh_processes("perpixel.bench.fused_ops", spec, [PLAIN, FUSED], above="run", threads=threads)
    return {name: value["peak_mb"] for name, value in held.items()}


def fused_targets(device: str, rows: Mapping[str, Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Returns the targets of a row on a kind of device, open without what was measured of both forms."""
    rows = rows or {}
    fused, plain = rows.get(FUSED), rows.get(PLAIN)
    least = LEAST_SPEED[torch.device(device).type]
    speed = fused["times_as_fast"]["per_round"] if fused else None
    memory = fused["peak_mb"] / max(plain["peak_mb"], 1e-3) if fused and plain else None
    return [
        limit("times as fast as the plain form", speed, least, sense="at least"),
        limit("extra memory, as a share of the plain form's", memory, MOST_MEMORY, sense="at most"),
    ]
