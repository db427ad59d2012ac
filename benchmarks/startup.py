"""Times what a user waits for before anything happens: the interpreter, ``import perpixel``, the command line's help.

Whole processes, interleaved rounds; the interpreter alone and ``import torch`` are the limits to compare with.

    python benchmarks/startup.py --json benchmarks/results/startup.json [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import perpixel": ["-c", "import perpixel"],
    "perpixel --help": ["-m", "perpixel", "--help"],
    "perpixel recipes": ["-m", "perpixel", "recipes"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Prints the fastest and the median round of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(arguments.rounds + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            if number:  # the first round warms the file cache
                seconds[name].append(time.perf_counter() - started)
    table = {name: {"min": min(values), "median": statistics.median(values)} for name, values in seconds.items()}
    for name, row in table.items():
        print(f"{name:20s} min {row['min']:.3f} s   median {row['median']:.3f} s")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"rounds": arguments.rounds, "seconds": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
