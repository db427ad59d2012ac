import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops.class_masks import dilated_masks, eroded_masks


def disk(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Every pixel against every other: the definition."""
    height, width = mask.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], dim=1)
    near = (places[:, None] - places).square().sum(dim=2) <= radius**2
    return (near & mask.flatten()).any(dim=1).view(height, width)


def test_dilated_masks_single_pixel_grows_to_a_disk() -> None:
    target = torch.zeros(1, 5, 5, dtype=torch.uint8)
    target[0, 2, 2] = 1
    plus = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]).float()
    masks = dilated_masks(target, 3, radius=1)
    assert torch.equal(masks[0, 1, 1:4, 1:4], plus)
    assert masks[0, 1].sum() == 5
    assert masks[0, 0].sum() == 25  # the background reaches over the single pixel
    assert masks[0, 2].sum() == 0


def test_eroded_masks_lose_the_rim_but_not_the_edge_of_the_map() -> None:
    target = torch.ones(1, 3, 4, dtype=torch.uint8)
    target[0, :, 3] = 0
    masks = eroded_masks(target, 2, radius=1)
    assert masks[0, 1].tolist() == [[1, 1, 0, 0]] * 3
    assert masks[0, 0].sum() == 0


@pytest.mark.parametrize("radius", [0, 2, 5])
def test_masks_equal_the_definition_on_a_random_map(radius: int) -> None:
    torch.manual_seed(radius)
    target = torch.randint(0, 3, (2, 9, 13))
    grown, shrunk = dilated_masks(target, 3, radius=radius), eroded_masks(target, 3, radius=radius)
    for image in range(2):
        for index in range(3):
            own = target[image] == index
            assert torch.equal(grown[image, index].bool(), disk(own, radius))
            assert torch.equal(shrunk[image, index].bool(), ~disk(~own, radius))


def test_masks_ignored_pixels_count_as_the_named_class() -> None:
    target = torch.full((1, 2, 2), 255)
    assert dilated_masks(target, 2, radius=1)[0].sum(dim=(1, 2)).tolist() == [4, 0]
    assert dilated_masks(target, 2, radius=1, ignored_as=1)[0].sum(dim=(1, 2)).tolist() == [0, 4]


def test_masks_on_a_coarse_grid_are_the_fine_ones_picked() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 16, 24))
    fine = dilated_masks(target, 2, radius=2)
    assert torch.equal(dilated_masks(target, 2, radius=2, size=(4, 6)), fine[:, :, 2::4, 2::4])


def test_masks_negative_radius_is_refused() -> None:
    with pytest.raises(InvalidValue, match="radius must be >= 0 pixels, got -1"):
        dilated_masks(torch.zeros(1, 2, 2), 2, radius=-1)
