"""Transforms and loading against torchvision v2 and albumentations: ``perpixel bench loader``, which see.

python benchmarks/transforms.py [--rounds N] [--json FILE] [--only ROW ...]
"""

from __future__ import annotations

import sys

from perpixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "loader", *sys.argv[1:]]))
