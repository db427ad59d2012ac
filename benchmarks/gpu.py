"""Measures a named subset on a GPU, within eight minutes; needs torch, timm, numpy and scipy alone.

python benchmarks/gpu.py [--only dfn pspnet icnet hrnet fused_ops crf transforms roofline] [--device cpu --tiny]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # perpixel need not be installed

from perpixel.bench.gpu import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
