"""Windows: where they lie, how they blend, and tiles that give what the whole image gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perpixel.errors import InvalidValue
from perpixel.inference import OverlapTile, Segmenter, SlidingWindow, Windows
from perpixel.inference.sliding import Grid, blend_weights, slide, window_starts
from perpixel.labels import LabelSpace
from perpixel.types import Preprocessing, SegOutput

LABELS = LabelSpace.numbered(3)


class ValidNetwork(nn.Module):
    """Two valid 3x3 convolutions: two pixels are lost on each side, as in the original U-Net; or padded ones."""

    def __init__(self, *, margin=2):
        super().__init__()
        torch.manual_seed(3)
        padding = 0 if margin else 1
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=padding))
        self.num_classes, self.align_corners, self.margin, self.minimum_size = 3, False, margin, 1
        self.preprocessing = Preprocessing()

    def valid_size(self, height, width):
        return max(height, 5), max(width, 5)

    def forward(self, images):
        return SegOutput(self.layers(images))


class WhereNetwork(ValidNetwork):
    """Scores that depend on the place within the input, so that every window says something else."""

    def __init__(self):
        super().__init__(margin=0)

    def valid_size(self, height, width):
        return height, width

    def forward(self, images):
        ramp = torch.linspace(-1, 1, images.shape[-1])
        return SegOutput(images + ramp * torch.arange(3.0)[:, None, None])


def test_window_starts_worked_by_hand():
    assert window_starts(10, 4, 3) == (0, 3, 6)
    assert window_starts(11, 4, 3) == (0, 3, 6, 7)
    assert window_starts(11, 4, 3, last="padded") == (0, 3, 6, 9)
    assert window_starts(4, 4, 1) == (0,)
    assert window_starts(3, 4, 4) == (0,)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["shifted", "padded"]))
@settings(max_examples=60, deadline=None)
def test_window_starts_leave_no_pixel_out(length, window, stride, last):
    stride = min(stride, window)
    starts = window_starts(length, window, stride, last=last)
    covered = {pixel for start in starts for pixel in range(start, start + window)}
    assert set(range(length)) <= covered
    assert len(starts) == max(0, -(-(length - window) // stride)) + 1
    if last == "shifted":
        assert max(covered) == max(length, window) - 1


@pytest.mark.parametrize(("name", "numbers"), [("length", (0, 4, 2)), ("window", (9, 0, 2)), ("stride", (9, 4, 0))])
def test_window_starts_number_below_one_refused(name, numbers):
    with pytest.raises(InvalidValue, match=f"the {name} of windows is a number of pixels >= 1, got 0"):
        window_starts(*numbers)


def test_window_starts_with_gaps_refused():
    with pytest.raises(InvalidValue, match="windows of 4 pixels with a stride of 5 leave gaps; give a stride <= 4"):
        window_starts(20, 4, 5)


def test_window_starts_unknown_last_refused():
    with pytest.raises(InvalidValue, match="last is one of shifted, padded, got 'shift'; did you mean 'shifted'"):
        window_starts(20, 4, 4, last="shift")


def test_blend_weights_smooth_are_positive_symmetric_and_highest_inside():
    weights = blend_weights(7, "smooth")
    assert (weights > 0).all()
    assert torch.allclose(weights, weights.flip(0))
    assert weights.argmax() == 3
    assert torch.equal(blend_weights(7, "uniform"), torch.ones(7, dtype=torch.float64))


def test_blend_weights_unknown_refused():
    with pytest.raises(InvalidValue, match="blend is one of uniform, smooth, got 'gauss'"):
        blend_weights(4, "gauss")


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(2, 9), st.integers(2, 9), st.sampled_from(["uniform", "smooth"])
)
@settings(max_examples=15, deadline=None)
def test_slide_constant_scores_give_the_constant(height, width, size, stride, blend):
    grid = Windows(size=size, stride=min(stride, size), blend=blend).grid(height, width)
    constant = torch.tensor([2.0, -3.0])[:, None, None]
    scores = slide(
        torch.zeros(2, 1, height, width),
        lambda x: constant.expand(len(x), 2, *x.shape[-2:]),
        grid,
        num_classes=2,
        dtype=torch.float64,
        blend=blend,
        batch_size=3,
    )
    torch.testing.assert_close(scores, constant.double().expand(2, 2, height, width))


def test_slide_smooth_blend_worked_by_hand():
    # Two windows of 2 pixels over 3, both with the weights 1/2: the shared pixel is their mean.
    grid = Grid.over((1, 3), (1, 2), (1, 1), last="shifted")
    places = iter([1.0, 5.0])
    scores = slide(
        torch.zeros(1, 1, 1, 3),
        lambda x: torch.full((1, 1, 1, 2), next(places)),
        grid,
        num_classes=1,
        dtype=torch.float64,
        blend="smooth",
        batch_size=1,
    )
    torch.testing.assert_close(scores.flatten(), torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64))


def test_slide_not_divided_counts_overlaps_twice():
    grid = Grid.over((1, 3), (1, 2), (1, 1), last="shifted")
    scores = slide(
        torch.zeros(1, 1, 1, 3),
        lambda x: torch.ones(len(x), 1, 1, 2),
        grid,
        num_classes=1,
        dtype=torch.float32,
        divided=False,
    )
    assert scores.flatten().tolist() == [1.0, 2.0, 1.0]


def test_slide_of_no_images_refused():
    grid = Grid.over((2, 2), (2, 2), (1, 1), last="shifted")
    with pytest.raises(InvalidValue, match="there are no images in a batch of shape"):
        slide(torch.zeros(0, 1, 2, 2), lambda x: x, grid, num_classes=1, dtype=torch.float32)


def test_slide_batch_of_no_windows_refused():
    grid = Grid.over((2, 2), (2, 2), (1, 1), last="shifted")
    with pytest.raises(InvalidValue, match="the batch size of windows is at least 1, got 0"):
        slide(torch.zeros(1, 1, 2, 2), lambda x: x, grid, num_classes=1, dtype=torch.float32, batch_size=0)


@pytest.mark.parametrize("size", [(20, 30), (21, 300), 64])
def test_sliding_window_that_covers_the_image_is_the_whole_image(fake_network, raw_images, size):
    network, images = fake_network(stride=4), raw_images(2, 3, 20, 30)
    sliding = Segmenter(network, LABELS, procedure=SlidingWindow(windows=Windows(size=size, blend="smooth")))
    whole = Segmenter(network, LABELS)
    assert torch.equal(sliding.logits(images), whole.logits(images))
    assert torch.equal(sliding.classes(images), whole.classes(images))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("blend", ["uniform", "smooth"])
def test_sliding_window_over_a_pointwise_network_gives_the_whole_image(fake_network, raw_images, average, blend):
    network, images = fake_network(), raw_images(2, 3, 13, 17)
    procedure = SlidingWindow(windows=Windows(size=(5, 8), blend=blend), average=average, flip=True)
    scores = Segmenter(network, LABELS, procedure=procedure).logits(images).softmax(1)
    torch.testing.assert_close(scores, Segmenter(network, LABELS).logits(images).softmax(1))


def test_sliding_window_batch_size_changes_nothing(raw_images):
    images = raw_images(2, 3, 15, 19)
    one, many = (
        Segmenter(WhereNetwork(), LABELS, procedure=SlidingWindow(windows=Windows(size=7, stride=4, batch_size=n)))
        for n in (1, 5)
    )
    torch.testing.assert_close(one.logits(images), many.logits(images))


def test_sliding_window_averages_what_overlapping_windows_say(raw_images):
    images = raw_images(1, 3, 4, 6)
    procedure = SlidingWindow(windows=Windows(size=4, stride=2))
    scores = procedure(Segmenter(WhereNetwork(), LABELS), images).logits
    network = WhereNetwork()
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.preprocessing.mean, network.preprocessing.std))
    x = (images / 255 - mean) / std
    left, right = (network(x[..., start : start + 4]).logits.softmax(1) for start in (0, 2))
    torch.testing.assert_close(scores[..., :2], left[..., :2])
    torch.testing.assert_close(scores[..., 2:4], (left[..., 2:] + right[..., :2]) / 2)
    torch.testing.assert_close(scores[..., 4:], right[..., 2:])


def test_sliding_window_of_a_network_with_a_margin_sees_the_image_around_the_window(raw_images):
    network, images = ValidNetwork(), raw_images(1, 3, 11, 14)
    procedure = SlidingWindow(windows=Windows(size=6, stride=5), average="logits")
    torch.testing.assert_close(
        Segmenter(network, LABELS, procedure=procedure).logits(images), Segmenter(network, LABELS).logits(images)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "the size of windows is one number of pixels >= 1 or \\(height, width\\), got 0"),
        ({"size": (4, 5, 6)}, "the size of windows is one number"),
        ({"size": 8, "stride": 0}, "the stride of windows is one number of pixels >= 1"),
        ({"size": (8, 4), "stride": 5}, "windows of 4 pixels with a stride of 5 leave gaps"),
        ({"size": 8, "blend": "smoth"}, "did you mean 'smooth'"),
        ({"size": 8, "batch_size": 0}, "the batch size of windows is at least 1, got 0"),
    ],
)
def test_windows_that_cannot_be_laid_refused(settings, message):
    with pytest.raises(InvalidValue, match=message):
        Windows(**settings)


def test_sliding_window_unknown_average_refused():
    with pytest.raises(InvalidValue, match="average is one of probabilities, logits, got 'mean'"):
        SlidingWindow(windows=Windows(size=4), average="mean")


@given(st.integers(1, 19), st.integers(1, 13), st.integers(3, 9), st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_overlap_tile_of_valid_convolutions_is_the_whole_image(raw_images, height, width, tile, batch_size):
    network, images = ValidNetwork(), raw_images(2, 3, height, width)
    tiled = Segmenter(network, LABELS, procedure=OverlapTile(tile=(tile, tile + 1), batch_size=batch_size))
    torch.testing.assert_close(tiled.logits(images), Segmenter(network, LABELS).logits(images))


def test_overlap_tile_with_a_given_margin_mirrors_the_image_beyond_its_edge(raw_images):
    padded, valid = ValidNetwork(margin=0), ValidNetwork()
    valid.load_state_dict(padded.state_dict())
    images = raw_images(1, 3, 12, 9)
    tiled = Segmenter(padded, LABELS, procedure=OverlapTile(tile=5, margin=2))
    torch.testing.assert_close(tiled.logits(images), Segmenter(valid, LABELS).logits(images))
    assert not torch.allclose(tiled.logits(images), Segmenter(padded, LABELS).logits(images))


def test_overlap_tile_without_a_margin_refused(fake_network, raw_images):
    segmenter = Segmenter(fake_network(), LABELS, procedure=OverlapTile(tile=8))
    with pytest.raises(InvalidValue, match="this network loses no margin; give margin=PIXELS, or take SlidingWindow"):
        segmenter.classes(raw_images(1, 3, 12, 9))


def test_overlap_tile_with_another_margin_than_the_networks_refused(raw_images):
    segmenter = Segmenter(ValidNetwork(), LABELS, procedure=OverlapTile(tile=8, margin=5))
    with pytest.raises(InvalidValue, match="the network loses 2 pixels on each side, so the margin cannot be 5"):
        segmenter.classes(raw_images(1, 3, 12, 9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 0}, "the tile is one number of pixels >= 1"),
        ({"tile": 4, "margin": 0}, "the margin of tiles is at least 1 pixel, got 0"),
        ({"tile": 4, "batch_size": 0}, "the batch size of tiles is at least 1, got 0"),
    ],
)
def test_overlap_tile_that_cannot_be_laid_refused(settings, message):
    with pytest.raises(InvalidValue, match=message):
        OverlapTile(**settings)


def test_plain_loop_over_windows_gives_the_same_sum():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 11, 9, generator=generator)
    weight = torch.randn(2, 3, 3, 3, generator=generator)
    grid = Grid.over((11, 9), (5, 4), (3, 3), last="shifted")

    def score(windows):
        return F.conv2d(windows, weight, padding=1)

    ours = slide(x, score, grid, num_classes=2, dtype=torch.float32, blend="smooth", batch_size=2)
    total, weights = torch.zeros(2, 11, 9), torch.zeros(11, 9)
    blend = blend_weights(5, "smooth")[:, None] * blend_weights(4, "smooth")
    for y in grid.rows:
        for left in grid.columns:
            total[:, y : y + 5, left : left + 4] += score(x[..., y : y + 5, left : left + 4])[0] * blend.float()
            weights[y : y + 5, left : left + 4] += blend.float()
    torch.testing.assert_close(ours[0], total / weights)
