"""Imports, the help and the first training step: ``perpixel bench startup``, which see.

python benchmarks/startup.py [--rounds N] [--json FILE] [--only ROW ...]
"""

from __future__ import annotations

import sys

from perpixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "startup", *sys.argv[1:]]))
