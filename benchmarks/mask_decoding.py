"""What `saved_masks.py` compares with: decoding both masks of a pair and nothing else, in worker processes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from perpixel.evaluation.mask_folders import MaskFiles


def decode(files: MaskFiles) -> int:
    """Returns the pixels of both masks."""
    total = 0
    for path in (files.prediction, files.target):
        with Image.open(str(path)) as image:
            total += np.asarray(image).size
    return total
