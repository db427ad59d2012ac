"""The dense CRF against pydensecrf (``--crf-python PYTHON``): ``perpixel bench crf``, which see.

python benchmarks/dense_crf.py [--rounds N] [--json FILE] [--only ROW ...]
"""

from __future__ import annotations

import sys

from perpixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "crf", *sys.argv[1:]]))
