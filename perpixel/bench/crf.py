"""The dense CRF against pydensecrf on street scenes with texture and sensor noise.

DeepLab v2's numbers for ResNet-101, ten updates. Every run is a process of its own, in turns, so that its memory is its
own; time counts set-up and updates, not imports or the making of images. pydensecrf is C++ and runs one thread; it
lives in an environment of its own, whose Python is given. Without it ours is measured against the limits alone.

``python -m perpixel.bench.crf PROBLEM.npz MASK.npy THREADS`` is one run of ours.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.bench import crf_peer
from perpixel.bench.contest import Contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.process_memory import peak_megabytes
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.data.scenes import SceneConfig, generate_scene
from perpixel.errors import RunError
from perpixel.inference.dense_crf import DENSE_CRFS, crf_kernels, dense_crf

__all__ = ["contend_with_peer", "make_problem", "measure"]

PEER, OURS = "pydensecrf", "perpixel"
SIZES = {
    "500x375, 21 classes": (375, 500, 21),
    "1024x1024, 19 classes": (1024, 1024, 19),
    "2048x1024, 19 classes": (1024, 2048, 19),
}
SMALL, HALF, LARGE = SIZES
LIMIT_SECONDS = 1.68
"""pydensecrf's time at the first size on the machine that made the reference data, one thread."""
LIMIT_MEBIBYTES = 1430
"""1.5 GB for the whole process."""
PARAMETERS = "deeplab_v2_resnet101"
TINY = dict.fromkeys(SIZES, (40, 60, 5))


def measure(request: Request) -> Report:
    """Measures every size, the first in several rounds."""
    threads = use_threads(request.threads)
    sizes = TINY if request.tiny else SIZES
    chosen = request.chosen(sizes)
    report = Report(
        request.json,
        "crf",
        environment=describe_environment(threads=threads),
        settings={"parameters": PARAMETERS, "with_peer": request.crf_python is not None, "tiny": request.tiny},
        rounds=request.rounds_or(5),
    )
    for name in chosen:
        rounds = report.rounds if name == SMALL else 1
        row = measured_row(
            name,
            partial(contend_with_peer, name, sizes[name], rounds=rounds, threads=threads, peer=request.crf_python),
            targets=_limits(name, {}),
        )
        request.say_row(report.put(row))
    if request.crf_python is None:
        request.say("without pydensecrf: give --crf-python, the Python of an environment that holds it and numpy")
    return report


def contend_with_peer(name: str, size: tuple[int, int, int], *, rounds: int, threads: int, peer: str | None) -> Row:
    """Runs ours and, where it is given, the peer in turns.

    Raises:
        RunError: one of the processes failed.
    """
    runs: dict[str, list[dict[str, Any]]] = {who: [] for who in ((OURS, PEER) if peer else (OURS,))}
    with tempfile.TemporaryDirectory() as folder:
        problem = Path(folder) / "problem.npz"
        image, probabilities = make_problem(*size)
        np.savez(problem, image=image, probabilities=probabilities)
        masks = {who: Path(folder) / f"{who}.npy" for who in runs}
        commands = {
            OURS: [sys.executable, "-m", "perpixel.bench.crf", str(problem), str(masks[OURS]), str(threads)],
            PEER: [peer or "", crf_peer.__file__, str(problem), str(masks.get(PEER, ""))],
        }
        for number in range(rounds):
            for who in runs if number % 2 else reversed(runs):
                runs[who].append(_run(who, commands[who]))
        agreement = _same_class(masks) if peer else None
    reference = PEER if peer else OURS
    found = Contest({who: [run["seconds"] for run in done] for who, done in runs.items()}).rows(reference)
    for who, done in runs.items():
        found[who] |= {key: statistics.median(run[key] for run in done) for key in ("setup_s", "process_mb", "peak_mb")}
    values = {"same_class": agreement} if peer else {}
    return row_of(name, found, reference=PEER if peer else None, values=values, limits=_limits(name, found))


def make_problem(height: int, width: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Returns a scene (H, W, 3) and probabilities (K, H, W): smooth blobs, sharper where the scene is."""
    whole = max(w for h, w, _ in (*SIZES.values(), (height, width, 0)) if h == height)
    image, labels = generate_scene(SceneConfig(height=height, width=whole), 0)
    image, labels = image[:, :width].copy(), labels[:, :width].copy()
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 1, (classes, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    scores = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].copy()
    for index in range(classes):
        scores[index] += 3 * (labels == index)
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return image, scores


def main(arguments: Sequence[str]) -> None:
    """Is one run of ours."""
    problem, mask, threads = arguments
    torch.set_num_threads(int(threads))
    with np.load(problem) as stored:
        image = torch.from_numpy(stored["image"]).permute(2, 0, 1)
        probabilities = torch.from_numpy(stored["probabilities"])
    crf = DENSE_CRFS[PARAMETERS]
    before = peak_megabytes()
    started = time.perf_counter()
    refined = dense_crf(probabilities, image, crf)
    seconds = time.perf_counter() - started
    peak = peak_megabytes()
    started = time.perf_counter()
    crf_kernels(image[None], crf, num_classes=len(probabilities), dtype=torch.float32)
    setup = time.perf_counter() - started
    np.save(mask, refined.argmax(0).to(torch.uint8).numpy())
    found = {"seconds": seconds, "setup_s": setup, "process_mb": peak, "peak_mb": peak - before}
    sys.stdout.write(json.dumps(found) + "\n")


def _run(who: str, command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunError(f"{who} cannot be started by {command[0]!r}: {error.strerror}; give another Python") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        raise RunError(f"{who} failed under {command[0]}: {said[0]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _same_class(masks: dict[str, Path]) -> float:
    ours, theirs = (np.load(masks[who]) for who in (OURS, PEER))
    return float((ours == theirs).mean())


def _limits(name: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    ours = found.get(OURS, {})
    if name == SMALL:
        return [limit("time", ours.get("median_s"), LIMIT_SECONDS, sense="at most", unit="s")]
    if name == LARGE:
        return [limit("memory of the process", ours.get("process_mb"), LIMIT_MEBIBYTES, sense="at most", unit="MiB")]
    return []


if __name__ == "__main__":
    main(sys.argv[1:])
