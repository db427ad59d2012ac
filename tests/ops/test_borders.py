from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from perpixel.errors import InvalidValue
from perpixel.ops import border_targets

VECTOR = Path(__file__).parents[1] / "reference" / "border-targets" / "torchseg-dfn" / "expected.npz"


def step_image() -> torch.Tensor:
    target = torch.zeros(1, 40, 60, dtype=torch.uint8)
    target[:, :, 30:] = 3
    return target


def test_border_targets_straight_step_is_the_published_band() -> None:
    band = border_targets(step_image(), radius=3)[0, 20].nonzero().flatten().tolist()
    assert band == list(range(26, 33))  # specs: columns 26..32 for a step between 29 and 30


def test_border_targets_radius_zero_marks_the_left_side_only() -> None:
    assert border_targets(step_image(), radius=0)[0, 20].nonzero().flatten().tolist() == [29]


def test_border_targets_uniform_map_has_no_border() -> None:
    assert border_targets(torch.full((2, 9, 9), 4), radius=3).sum() == 0


def test_border_targets_ignored_pixels_stay_ignored_and_make_no_border() -> None:
    target = torch.zeros(1, 20, 20, dtype=torch.uint8)
    target[:, 5:9] = 255
    borders = border_targets(target)
    assert (borders[:, 5:9] == 255).all()
    assert (borders == 1).sum() == 0
    with_ignored = border_targets(target, ignored_is_border=True)
    assert (with_ignored == 255).sum() == 0


def test_border_targets_ignored_counts_as_class_zero_on_request() -> None:
    target = torch.full((1, 20, 20), 2, dtype=torch.uint8)
    target[:, :, 10:] = 255
    assert (border_targets(target, ignored_is_border=True) == 1).any()


def test_border_targets_one_pixel_image_has_no_border() -> None:
    assert border_targets(torch.zeros(1, 1, 1, dtype=torch.uint8)).tolist() == [[[0]]]


def test_border_targets_negative_radius_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"radius must be >= 0 pixels, got -1"):
        border_targets(step_image(), radius=-1)


@pytest.mark.parametrize(("index", "agreement"), [("0", 0.964), ("1", 0.972)])
def test_border_targets_agree_with_torchsegs_canny_but_at_corners(index: str, agreement: float) -> None:
    """Measured on these maps, which are full of small regions: 96.4 % and 97.2 % of pixels; no band is 3 px off."""
    arrays = np.load(VECTOR)
    ours = border_targets(torch.from_numpy(arrays[f"gt{index}"])[None], ignored_is_border=True)[0].numpy()
    theirs = arrays[f"edge{index}"]
    assert (ours == theirs).mean() >= agreement
    assert distance_transform_edt(theirs == 0)[(ours == 1) & (theirs == 0)].max() < 3
    assert distance_transform_edt(ours == 0)[(ours == 0) & (theirs == 1)].max() < 3
