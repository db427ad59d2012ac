"""Times the dense CRF against pydensecrf, alternating on the same image, and measures memory on a large one.

Street scenes with texture and sensor noise, DeepLab v2's numbers for ResNet-101, ten updates. Every measurement is a
process of its own, so that its peak memory is its own; time counts set-up and updates, not imports or the making of
images. pydensecrf is C++ and runs one thread; where it is installed is told by the Python of its environment.

    python benchmarks/dense_crf.py --json benchmarks/results/dense_crf.json [--peer PYTHON] [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
SIZES = {"small": (375, 500, 21), "half": (1024, 1024, 19), "large": (1024, 2048, 19)}
"""Height, width, classes; the second is the left half of the third, to see how cost grows."""
LIMIT_SECONDS = 1.68
"""pydensecrf's time at the first size on the machine that made the reference data, one thread."""
LIMIT_MEGABYTES = 1430
"""1.5 GB, in MiB as all that is measured here."""


def write_problem(path: Path, height: int, width: int, classes: int) -> None:
    """Stores a scene (H, W, 3) uint8 and probabilities (K, H, W) float32: smooth blobs, sharper where the scene is."""
    from perpixel.data import SceneConfig, generate_scene  # the peer's environment has no perpixel

    whole = max(w for h, w, _ in SIZES.values() if h == height)
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
    np.savez(path, image=image, probabilities=scores)


def run_ours(problem: Path, threads: int) -> dict[str, Any]:
    """One run of perpixel in this process."""
    import torch

    from perpixel.inference import dense_crf as module

    torch.set_num_threads(threads)
    with np.load(problem) as stored:
        image = torch.from_numpy(stored["image"]).permute(2, 0, 1)
        probabilities = torch.from_numpy(stored["probabilities"])
    crf = module.DENSE_CRFS["deeplab_v2_resnet101"]
    before = peak_megabytes()
    started = time.perf_counter()
    refined = module.dense_crf(probabilities, image, crf)
    seconds = time.perf_counter() - started
    held = memory(before)
    started = time.perf_counter()
    filters, _ = module.crf_kernels(image[None], crf, num_classes=len(probabilities), dtype=torch.float32)
    setup = time.perf_counter() - started
    vertices = [filter_.vertices for filter_ in filters]
    np.save(problem.with_suffix(".ours.npy"), refined.argmax(0).to(torch.uint8).numpy())
    return {"seconds": seconds, "setup": setup, "vertices": vertices, **held}


def run_peer(problem: Path) -> dict[str, Any]:
    """One run of pydensecrf in this process."""
    from pydensecrf import densecrf
    from pydensecrf.utils import unary_from_softmax

    with np.load(problem) as stored:
        image, probabilities = np.ascontiguousarray(stored["image"]), stored["probabilities"]
    classes, height, width = probabilities.shape
    before = peak_megabytes()
    started = time.perf_counter()
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(probabilities))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    setup = time.perf_counter() - started
    refined = np.array(crf.inference(10))
    seconds = time.perf_counter() - started
    mask = refined.argmax(axis=0).astype(np.uint8).reshape(height, width)
    np.save(problem.with_suffix(".peer.npy"), mask)
    return {"seconds": seconds, "setup": setup, **memory(before)}


def peak_megabytes() -> float:
    """The most memory that this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with what the parent held when it forked
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(held.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(before: float) -> dict[str, float]:
    return {"peak_mb": peak_megabytes(), "peak_before_mb": before}


def measured(python: str, role: str, problem: Path, threads: int) -> dict[str, Any]:
    """Runs one measurement in a fresh process."""
    command = [python, str(HERE), "--role", role, "--problem", str(problem), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def spread(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "setup_median_s": statistics.median(run["setup"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "peak_before_mb": max(run["peak_before_mb"] for run in runs),
        **({"vertices": runs[0]["vertices"]} if "vertices" in runs[0] else {}),
    }


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures every size, ours and the peer taking turns at the first one."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            problem = Path(folder) / f"{name}.npz"
            write_problem(problem, *size)
            rounds = arguments.rounds if name == "small" else 1
            runs: dict[str, list[dict[str, Any]]] = {"perpixel": []}
            for _ in range(rounds):
                runs["perpixel"].append(measured(sys.executable, "ours", problem, arguments.threads))
                if arguments.peer:
                    runs.setdefault("pydensecrf", []).append(measured(arguments.peer, "peer", problem, 1))
            row: dict[str, Any] = {"size": size, **{who: spread(found) for who, found in runs.items()}}
            if arguments.peer:
                ours, peer = (np.load(problem.with_suffix(f".{who}.npy")) for who in ("ours", "peer"))
                row["same_class"] = float((ours == peer).mean())
                row["speedup"] = row["pydensecrf"]["median_s"] / row["perpixel"]["median_s"]
            results[name] = row
            print(name, json.dumps(row), flush=True)
    return results


def environment(threads: int) -> dict[str, Any]:
    import torch

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE.parent, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "device": "cpu",
        "machine": platform.machine(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def main() -> None:
    """Measures everything, or is one of the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", help="Python of an environment with pydensecrf and numpy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--role", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--problem", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        problem = arguments.problem
        result = run_ours(problem, arguments.threads) if arguments.role == "ours" else run_peer(problem)
        print(json.dumps(result))
        return
    results = benchmark(arguments)
    small, half, large = (results[name]["perpixel"] for name in SIZES)
    growth = large["median_s"] / half["median_s"]
    print(
        f"500x375: {small['median_s']:.2f} s (limit {LIMIT_SECONDS} s); twice the pixels, {growth:.2f} times the time"
    )
    print(f"1024x2048: {large['median_s']:.2f} s, {large['peak_mb']:.0f} MiB (limit {LIMIT_MEGABYTES} MiB)")
    if arguments.json:
        report = {
            "benchmark": "dense_crf",
            "parameters": "deeplab_v2_resnet101",
            "limits": {"small_s": LIMIT_SECONDS, "large_mb": LIMIT_MEGABYTES},
            "environment": environment(arguments.threads),
            "results": results,
            "growth_of_time_with_twice_the_pixels": growth,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
