"""Runs the quick benchmarks one after the other and writes their JSON files to benchmarks/results.

dfn_ablation.py, segnet_decoders.py and unet_isbi.py train networks, as `perpixel bench lineage` does, dense_crf.py
takes the Python of a peer and forward.py a folder with one: these are run by themselves.

    python benchmarks/run_all.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUICK = ("startup", "transforms", "confusion_matrix", "saved_masks", "scenes", "distance_weights", "icnet")


def main() -> None:
    """Stops at the first benchmark that fails."""
    here = Path(__file__).resolve().parent
    (here / "results").mkdir(exist_ok=True)
    for name in QUICK:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, str(here / f"{name}.py"), "--json", str(here / "results" / f"{name}.json")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
