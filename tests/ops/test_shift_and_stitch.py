import pytest
import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.ops.shift_and_stitch import dilate_subsampling, shift_and_stitch

FIELD = 24  # of valid_network, pixels


def whole_numbers(*layers: nn.Module) -> nn.Sequential:
    """A network in float64 whose weights are small whole numbers: its sums have no rounding, whatever their order."""
    network = nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randint(-2, 3, parameter.shape, generator=generator).double()
    return network


def image(*shape: int) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(1)).double()


def valid_network() -> nn.Sequential:
    """Every kind of layer; output stride 8."""
    return whole_numbers(
        nn.Conv2d(2, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Dropout(0.5)),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 2, 2),
    )


@pytest.mark.parametrize("size", [(24, 31), (40, 53), (47, 38)])
def test_stitched_output_of_a_valid_network_is_that_of_the_dilated_rewrite(size: tuple[int, int]) -> None:
    network, images = valid_network(), image(2, 2, *size)
    stitched = shift_and_stitch(network, images, 8)
    dense = dilate_subsampling(network)(images)
    assert torch.equal(stitched, dense)
    assert stitched.shape == (2, 2, *(n - FIELD + 1 for n in size))
    assert torch.equal(stitched[..., ::8, ::8], network(images))


def test_stitched_output_with_weights_of_any_value_agrees_to_rounding() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, stride=3), nn.BatchNorm2d(3), nn.MaxPool2d(2)).double().eval()
    images = torch.randn(1, 1, 23, 25, dtype=torch.float64)
    stitched, dense = shift_and_stitch(network, images, 6), dilate_subsampling(network)(images)
    assert torch.allclose(stitched, dense, rtol=0, atol=1e-12)


def test_stitched_output_of_a_padded_network_has_the_images_size() -> None:
    network = whole_numbers(
        nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True)
    )
    images = image(1, 1, 19, 22)
    stitched = shift_and_stitch(network, images, 4)
    assert stitched.shape == images.shape
    assert torch.equal(stitched[..., ::4, ::4], network(images))


def test_stride_of_one_is_the_network_itself() -> None:
    network, images = whole_numbers(nn.Conv2d(1, 2, 3)), image(1, 1, 9, 9)
    assert torch.equal(shift_and_stitch(network, images, 1), network(images))


def test_stitching_passes_gradients_on() -> None:
    images = torch.randn(1, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    network = nn.Sequential(nn.Conv2d(1, 1, 2, stride=2)).double()
    assert torch.autograd.gradcheck(lambda x: shift_and_stitch(network, x, 2), (images,))


def test_dilated_rewrite_leaves_the_network_as_it_was() -> None:
    network = valid_network()
    dense = dilate_subsampling(network)
    assert network[2].stride == 2
    assert [layer.dilation for layer in (dense[0], dense[2], dense[3][0], dense[4], dense[5])] == [
        (1, 1),
        (1, 1),
        (2, 2),
        (4, 4),
        (8, 8),
    ]
    assert dense[4].stride == (1, 1)


def test_stitching_with_another_stride_than_the_networks_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"moved by \(0, 0\) pixels .* its output stride is not 4"):
        shift_and_stitch(nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 12, 12), 4)
    with pytest.raises(InvalidValue, match="must be >= 1, got 0"):
        shift_and_stitch(nn.Identity(), torch.zeros(1, 1, 4, 4), 0)


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.AvgPool2d(2), "AvgPool2d"), (nn.Conv2d(1, 1, 3, padding="same"), "Conv2d")]
)
def test_dilated_rewrite_of_an_unknown_layer_is_refused(layer: nn.Module, name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"layer '1' \({name}\) has no rewrite"):
        dilate_subsampling(nn.Sequential(nn.ReLU(), layer))
