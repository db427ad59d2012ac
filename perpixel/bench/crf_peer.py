"""One run of pydensecrf, as a program of its own: ``PYTHON crf_peer.py PROBLEM.npz MASK.npy``.

It imports nothing of perpixel, so that it runs in any environment with NumPy and pydensecrf, and writes seconds and the
memory of the process as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Reads the problem, runs ten updates with DeepLab v2's numbers and stores the classes."""
    densecrf = import_module("pydensecrf.densecrf")
    unary_from_softmax = import_module("pydensecrf.utils").unary_from_softmax
    with np.load(arguments[0]) as stored:
        image, probabilities = np.ascontiguousarray(stored["image"]), stored["probabilities"]
    classes, height, width = probabilities.shape
    before = _held()
    started = time.perf_counter()
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    setup = time.perf_counter() - started
    refined = np.array(crf.inference(10))
    seconds = time.perf_counter() - started
    peak = _held()
    np.save(arguments[1], refined.argmax(axis=0).astype(np.uint8).reshape(height, width))
    found = {"seconds": seconds, "setup_s": setup, "process_mb": peak, "peak_mb": peak - before}
    sys.stdout.write(json.dumps(found) + "\n")


def _held() -> float:
    """The most memory that this process has held, in MiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
