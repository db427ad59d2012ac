import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops.superpixels import neighbourhood_boxes, region_means, rgb_to_lab, slic, superpixel_grid


def pieces(labels: torch.Tensor, index: int) -> int:
    """Four-connected components of one region, by flooding."""
    left = {tuple(p) for p in (labels == index).nonzero().tolist()}
    found = 0
    while left:
        found += 1
        stack = [left.pop()]
        while stack:
            y, x = stack.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
    return found


def test_rgb_to_lab_knows_white_black_and_red() -> None:
    colors = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).T[None, :, :, None]
    lab = rgb_to_lab(colors)[0, :, :, 0].T
    expected = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20]])
    assert torch.allclose(lab, expected, atol=0.02)


def test_slic_flat_image_gives_the_grid() -> None:
    labels = slic(torch.zeros(1, 3, 20, 30), num_segments=6)
    assert superpixel_grid(20, 30, 6) == (2, 3)
    rows = torch.arange(20)[:, None] // 10 * 3
    assert torch.equal(labels[0], rows + torch.arange(30) // 10)


def test_slic_follows_a_border_of_colour() -> None:
    """A border at column 13 of 30: no region holds pixels of both sides."""
    image = torch.zeros(1, 3, 30, 30)
    image[:, 0, :, 13:] = 80
    labels = slic(image, num_segments=9, compactness=10)[0]
    assert set(labels[:, :13].unique().tolist()).isdisjoint(labels[:, 13:].unique().tolist())


def test_slic_regions_are_of_one_piece_and_cover_the_image() -> None:
    torch.manual_seed(0)
    image = 60 * torch.rand(2, 3, 24, 32)
    loose = slic(image, num_segments=12, compactness=2, connected=False)
    labels = slic(image, num_segments=12, compactness=2)
    assert max(pieces(loose[0], i) for i in loose[0].unique().tolist()) > 1
    for single in labels:
        assert single.min() >= 0 and single.max() < 12
        assert [pieces(single, i) for i in single.unique().tolist()] == [1] * len(single.unique())


def test_slic_batch_equals_single_images() -> None:
    torch.manual_seed(1)
    images = 50 * torch.rand(2, 3, 16, 16)
    together = slic(images, num_segments=8)
    assert torch.equal(together[1], slic(images[1:], num_segments=8)[0])


def test_slic_one_pixel_is_one_region() -> None:
    assert slic(torch.rand(1, 1, 1, 1), num_segments=500).tolist() == [[[0]]]


@pytest.mark.parametrize("change", [{"num_segments": 0}, {"iterations": 0}, {"compactness": 0.0}])
def test_slic_wrong_numbers_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match="slic wants num_segments and iterations >= 1 and compactness > 0"):
        slic(torch.zeros(1, 3, 4, 4), **change)  # type: ignore[arg-type]


def test_region_means_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    regions = torch.tensor([[[0, 2], [0, 2]]])
    assert region_means(x, regions, 3).tolist() == [[[3.0, 0.0, 5.0]]]
    otherwise = torch.full((1, 1, 3), 9.0)
    assert region_means(x, regions, 3, otherwise=otherwise).tolist() == [[[3.0, 9.0, 5.0]]]


def test_neighbourhood_boxes_grow_with_the_hops() -> None:
    """Four columns of regions 0 1 2 3, each one pixel wide; region 4 holds nothing."""
    regions = torch.arange(4).expand(1, 2, 4)
    assert neighbourhood_boxes(regions, 5, hops=0)[0].tolist() == [
        [0, 0, 2, 1],
        [0, 1, 2, 2],
        [0, 2, 2, 3],
        [0, 3, 2, 4],
        [0, 0, 2, 4],
    ]
    assert neighbourhood_boxes(regions, 5, hops=1)[0, :4, 1::2].tolist() == [[0, 2], [0, 3], [1, 4], [2, 4]]
    assert neighbourhood_boxes(regions, 5, hops=3)[0, 0].tolist() == [0, 0, 2, 4]


def test_region_means_gradcheck() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    regions = torch.tensor([[[0, 0, 2], [2, 2, 0]]])
    assert torch.autograd.gradcheck(lambda values: region_means(values, regions, 3), [x])
