"""Inference against the same networks of others: ``perpixel bench forward``, which see.

python benchmarks/forward.py [--rounds N] [--json FILE] [--only ROW ...]
"""

from __future__ import annotations

import sys

from perpixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "forward", *sys.argv[1:]]))
