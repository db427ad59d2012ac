"""The benchmarks by name; each module is imported when it is run, so that the list needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from perpixel.errors import InvalidValue, nearest

if TYPE_CHECKING:
    from perpixel.bench.request import Request
    from perpixel.bench.results import Report

__all__ = ["RESULTS", "SUBJECTS", "Subject", "run_subject"]

RESULTS = Path("benchmarks/results")
"""Where results are kept, one file per benchmark, from the root of the repository."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A benchmark whose module has ``measure(request) -> Report``."""

    module: str
    summary: str
    minutes: float
    """About how long it takes on two cores."""


SUBJECTS = {
    "startup": Subject(
        module="startup",
        summary="The interpreter, import perpixel, perpixel --help and the first training step, against import torch.",
        minutes=1.5,
    ),
    "roofline": Subject(
        module="roofline", summary="Matrix products, convolutions and copies: what this device can do.", minutes=0.5
    ),
    "training_step": Subject(
        module="training_step",
        summary="Time and memory of a training step, against plain loops around the same networks.",
        minutes=6,
    ),
    "forward": Subject(
        module="forward",
        summary="Latency, throughput and memory of inference, against the same networks of others.",
        minutes=8,
    ),
    "fused_ops": Subject(
        module="fused_ops", summary="Upsampling with loss or argmax in one, against the plain forms.", minutes=1.5
    ),
    "loader": Subject(
        module="loader",
        summary="Training transforms and loading, against torchvision v2 and albumentations.",
        minutes=3,
    ),
    "metrics": Subject(module="metrics", summary="The confusion matrix, against torchmetrics.", minutes=0.5),
    "crf": Subject(module="crf", summary="The dense CRF, against pydensecrf in an environment of its own.", minutes=3),
}
"""Name -> benchmark, in the order of ``perpixel bench all``."""


def run_subject(name: str, request: Request) -> Report:
    """Runs a benchmark.

    Raises:
        InvalidValue: there is no such benchmark.
    """
    if name not in SUBJECTS:
        raise InvalidValue(f"no benchmark {name!r}{nearest(name, SUBJECTS, end='.')} Known: {', '.join(SUBJECTS)}")
    module = import_module(f"perpixel.bench.{SUBJECTS[name].module}")
    return cast("Report", module.measure(request))
