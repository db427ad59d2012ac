"""Images by what changed, against hand-worked means."""

from __future__ import annotations

import numpy as np

from perpixel.metrics.image_changes import ImageChange, image_changes


def test_image_changes_are_sorted_and_undefined_ones_counted() -> None:
    right = np.array([[[4, 4, 4]], [[2, 4, 4]], [[0, 0, 0]], [[2, 4, 4]]])
    wrong = np.array([[[4, 4, 4]], [[4, 4, 4]], [[0, 0, 0]], [[0, 4, 4]]])
    changes, undefined = image_changes(["a", "b", "void", "d"], right, wrong)
    assert changes == (
        ImageChange(name="d", first=1 / 3, second=0.0),
        ImageChange(name="a", first=1.0, second=1.0),
        ImageChange(name="b", first=1 / 3, second=1.0),
    )
    assert undefined == 1
