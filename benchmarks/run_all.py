"""Runs the benchmarks: ``perpixel bench all``, then the quick ones that stand in this folder.

dfn_ablation.py, segnet_decoders.py and unet_isbi.py train networks, as ``perpixel bench lineage`` does; large_image.py,
multi_scale.py, boundary_metrics.py and data_check.py take minutes each: these are run by themselves. gpu.py: a GPU.

    python benchmarks/run_all.py [--rounds N] [--crf-python PYTHON]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perpixel.cli import main

QUICK = ("saved_masks", "scenes", "distance_weights", "icnet")


def run_quick() -> int:
    """Returns how many of the quick benchmarks failed; their results stand in benchmarks/results."""
    here = Path(__file__).resolve().parent
    failed = 0
    for name in QUICK:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, str(here / f"{name}.py"), "--json", str(here / "results" / f"{name}.json")]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    suite = main(["bench", "all", *sys.argv[1:]])
    sys.exit(1 if run_quick() or suite else 0)
