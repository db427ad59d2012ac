"""What the device can do at best, measured: rates of matrix products, convolutions and copies; and a network's share.

A share is what a network reaches over what the device reached on a large matrix product of the same number format, in
the same process. Its floating point operations are twice the multiplications that `models.cost` counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, row_of

__all__ = ["Rates", "measure", "measure_rates", "numbers", "rate_rows", "share", "synchronise"]

GIGA = 1e9
FORMATS = ("fp32", "tf32", "bf16")
BACKWARD = 3
"""A training step multiplies three times as much as the forward pass."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rates of one device, the fastest of several runs each; a format that it lacks is left out."""

    matmul: dict[str, float]
    """Floating point operations per second of a large square product, by format."""
    convolution: dict[str, float]
    """The same of a 3x3 convolution of 256 channels, channels_last."""
    copy: float
    """Bytes read and written per second by copying a block far larger than the caches."""

    def of(self, kind: Literal["matmul", "convolution"], fmt: str) -> float:
        """Returns a rate of a number format; that of float32 where the device has no TF32."""
        rates = self.matmul if kind == "matmul" else self.convolution
        return rates[fmt] if fmt in rates else rates["fp32"]


@contextmanager
def numbers(fmt: str) -> Iterator[None]:
    """Lets float32 products and convolutions on CUDA run as TF32 under ``"tf32"`` and as float32 under any other."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = fmt == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def synchronise(device: torch.device) -> Callable[[], None]:
    """Returns what waits for the device."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def measure_rates(device: torch.device | str, *, seconds: float = 0.5, side: int | None = None) -> Rates:
    """Measures the device.

    Args:
        device: cpu or cuda.
        seconds: Time for each rate, at least three runs.
        side: Of the matrices; None: 8192 on CUDA, 2048 elsewhere.
    """
    device = torch.device(device)
    side = side or (8192 if device.type == "cuda" else 2048)
    formats = [fmt for fmt in FORMATS if fmt != "tf32" or device.type == "cuda"]
    return Rates(
        matmul={fmt: _matmul(device, fmt, side, seconds) for fmt in formats},
        convolution={fmt: _convolution(device, fmt, max(side // 32, 8), seconds) for fmt in formats},
        copy=_copy(device, side, seconds),
    )


def share(gmacs: float, seconds: float, rate: float, *, training: bool = False) -> float:
    """Returns achieved floating point operations per second over ``rate``, in [0, 1] but for errors of measurement.

    Args:
        gmacs: Multiplications of the forward pass of all images of a run, in 10^9.
        seconds: Of a run.
        rate: From `Rates`.
        training: Counts the backward pass as twice the forward.
    """
    return 2 * gmacs * GIGA * (BACKWARD if training else 1) / seconds / rate


def measure(request: Request) -> Report:
    """Measures the rates of the device as a benchmark of its own."""
    report = Report(
        request.json,
        "roofline",
        environment=describe_environment(device=request.device, threads=use_threads(request.threads)),
        rounds=request.rounds_or(5),
    )
    found = [
        measure_rates(request.device, seconds=0.05 if request.tiny else 0.5, side=256 if request.tiny else None)
        for _ in range(report.rounds)
    ]
    for row in rate_rows(found):
        request.say_row(report.put(row))
    return report


def rate_rows(found: Sequence[Rates]) -> list[Row]:
    """Returns a row per rate: the median of several measurements, the lowest and the highest."""
    rows = []
    for kind in ("matmul", "convolution"):
        for fmt in asdict(found[0])[kind]:
            rates = [getattr(rate, kind)[fmt] / GIGA for rate in found]
            rows.append(row_of(f"{kind}, {fmt}", {}, values=_spread("GFLOP/s", rates)))
    rows.append(row_of("copy", {}, values=_spread("GB/s", [rate.copy / GIGA for rate in found])))
    return rows


def _spread(unit: str, rates: list[float]) -> dict[str, Any]:
    return {unit: statistics.median(rates), f"lowest {unit}": min(rates), f"highest {unit}": max(rates)}


def _matmul(device: torch.device, fmt: str, side: int, seconds: float) -> float:
    dtype = torch.bfloat16 if fmt == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with numbers(fmt):
        return 2 * side**3 / _fastest(lambda: a @ b, device, seconds)


def _convolution(device: torch.device, fmt: str, side: int, seconds: float) -> float:
    dtype = torch.bfloat16 if fmt == "bf16" else torch.float32
    batch = 16 if device.type == "cuda" else 1
    x = torch.randn(batch, 256, side, side, device=device).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    operations = 2 * batch * side**2 * 256 * 256 * 9
    with numbers(fmt), torch.inference_mode():
        return operations / _fastest(lambda: F.conv2d(x, kernel, padding=1), device, seconds)


def _copy(device: torch.device, side: int, seconds: float) -> float:
    values = side**2 * 8
    source, target = torch.ones(values, device=device), torch.empty(values, device=device)
    return 2 * 4 * values / _fastest(lambda: target.copy_(source), device, seconds)


def _fastest(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Returns the seconds of the fastest of at least three runs after two that are not counted."""
    wait = synchronise(device)
    for _ in range(2):
        run()
    wait()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        wait()
        found.append(time.perf_counter() - begun)
    return min(found)
