"""Times the generator of street scenes: 512 scenes of 256x256, written with all cores; the limit is 20 s on two.

python benchmarks/scenes.py --json benchmarks/results/scenes.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from perpixel.data import SceneConfig, write_scenes


def main() -> None:
    """Prints the seconds of one whole writing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--count", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_scenes(Path(folder), SceneConfig(height=256, width=256), train=arguments.count, val=0)
        seconds = time.perf_counter() - started
    print(
        f"{arguments.count} scenes of 256x256 in {seconds:.1f} s on {os.cpu_count()} cores (limit for 512 on two: 20 s)"
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        values = {"scenes": arguments.count, "seconds": seconds, "cores": os.cpu_count()}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
