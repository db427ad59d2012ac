"""The confusion matrix against torchmetrics: ``perpixel bench metrics``, which see.

python benchmarks/confusion_matrix.py [--rounds N] [--json FILE] [--only ROW ...]
"""

from __future__ import annotations

import sys

from perpixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "metrics", *sys.argv[1:]]))
