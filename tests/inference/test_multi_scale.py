"""Several scales and mirrored views: the mean by hand, the bands beside the plain way, and what must change nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.errors import InvalidValue, RunError
from perpixel.inference import MultiScale, Segmenter, WholeImage, Windows, procedures
from perpixel.inference.procedures import add_scores, stretched
from perpixel.inference.score_map import ScoreMap
from perpixel.labels import LabelSpace
from perpixel.ops.normalize import normalize
from perpixel.ops.resize import resize
from perpixel.types import SegOutput

LABELS = LabelSpace.numbered(3)


def with_ramp(network):
    """Makes the scores depend on the place across the input, so that mirroring matters."""
    plain = network.forward

    def forward(images):
        logits = plain(images).logits
        return SegOutput(logits + torch.linspace(-1, 1, logits.shape[-1]) * torch.arange(3.0)[:, None, None])

    network.forward = forward
    return network


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("views", [1, 2])
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(5, 90)
)
@settings(max_examples=15, deadline=None)
def test_add_scores_in_bands_equals_softmax_of_the_resized_map(
    align_corners, views, rows, columns, height, width, padding, band
):
    generator = torch.Generator().manual_seed(rows * 41 + columns)
    logits = torch.randn(views * 2, 3, rows, columns, generator=generator)
    covered = (height + padding, width + padding)
    scores = ScoreMap(logits=logits, covered=covered, size=(height, width), align_corners=align_corners)
    total = torch.ones(2, 3, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(procedures._BAND_VALUES, "cpu", band)
        add_scores(total, scores, "probabilities")
    plain = resize(logits, covered, align_corners=align_corners)[:, :, :height, :width].softmax(1)
    torch.testing.assert_close(total, 1 + plain.reshape(views, 2, 3, height, width).sum(0), atol=2e-5, rtol=0)
    total = torch.ones(2, 3, height, width)
    add_scores(total, scores, "logits")
    torch.testing.assert_close(total, 1 + scores.full().reshape(views, 2, 3, height, width).sum(0))


def test_stretched_map_with_padding_is_cut_before_it_is_stretched():
    logits = torch.arange(4.0).reshape(1, 1, 1, 4)
    scores = ScoreMap(logits=logits, covered=(1, 4), size=(1, 2), align_corners=True)
    assert stretched(scores, (1, 3)).full().flatten().tolist() == [0.0, 0.5, 1.0]
    assert stretched(scores, (1, 2)) is scores


@pytest.mark.parametrize("windows", [None, Windows(size=64)])
def test_multi_scale_of_one_plain_view_is_the_whole_image(fake_network, raw_images, windows):
    network, images = fake_network(stride=4), raw_images(2, 3, 22, 31)
    whole = Segmenter(network, LABELS)
    for procedure in (MultiScale(scales=(1,), flip=False, windows=windows), WholeImage()):
        segmenter = Segmenter(network, LABELS, procedure=procedure)
        assert torch.equal(segmenter.logits(images), whole.logits(images))
        assert torch.equal(segmenter.classes(images), whole.classes(images))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_multi_scale_is_the_mean_over_views(fake_network, raw_images, average, align_corners):
    network = with_ramp(fake_network(stride=4, align_corners=align_corners)).eval()
    images = raw_images(2, 3, 24, 32)
    procedure = MultiScale(scales=(0.5, 1.0, 1.5), average=average)
    scores = procedure(Segmenter(network, LABELS), images).logits
    x = normalize(images, network.preprocessing)
    views = []
    for scale in (0.5, 1.0, 1.5):
        size = (round(24 * scale), round(32 * scale))
        view = F.interpolate(x, size=size, mode="bilinear", antialias=True) if scale != 1 else x
        for mirror in (False, True):
            logits = network((view.flip(-1) if mirror else view).contiguous()).logits
            full = resize(logits.flip(-1) if mirror else logits, (24, 32), align_corners=align_corners)
            views.append(full.softmax(1) if average == "probabilities" else full)
    torch.testing.assert_close(scores, torch.stack(views).mean(0).detach(), atol=1e-5, rtol=1e-5)


def test_multi_scale_probabilities_worked_by_hand(brightness_network, raw_images):
    class Halves(torch.nn.Module):
        num_classes, align_corners, margin, minimum_size = 2, False, 0, 1
        preprocessing = brightness_network().preprocessing

        def valid_size(self, height, width):
            return height, width

        def forward(self, images):
            # Class 1 has the odds 3 : 1 in a view of 2 pixels and 1 : 1 in a view of 4.
            odds = torch.tensor([1.0, 3.0 if images.shape[-1] == 2 else 1.0])
            return SegOutput(odds.log()[None, :, None, None].expand(len(images), 2, *images.shape[-2:]))

    segmenter = Segmenter(Halves(), LabelSpace.numbered(2), procedure=MultiScale(scales=(1.0, 2.0)))
    probabilities = segmenter(raw_images(3, 2, 2)).probabilities
    assert probabilities[1].flatten().tolist() == pytest.approx([0.625] * 4)  # the mean of 3/4 and 1/2


def test_multi_scale_flip_of_a_network_that_mirrors_changes_nothing(fake_network, raw_images):
    images = raw_images(1, 3, 21, 30)
    network = fake_network(stride=1)
    mirrored, plain = (
        Segmenter(network, LABELS, procedure=MultiScale(scales=(0.75, 1.25), flip=flip)) for flip in (True, False)
    )
    torch.testing.assert_close(mirrored.logits(images), plain.logits(images))


@pytest.mark.parametrize("multiple", [1, 8])
def test_multi_scale_mirrored_together_or_one_by_one_is_equal(fake_network, raw_images, multiple):
    network, images = with_ramp(fake_network(stride=4, multiple=multiple)), raw_images(1, 3, 21, 30)
    together, single = (
        Segmenter(network, LABELS, procedure=MultiScale(pixels_at_once=pixels)) for pixels in (10**6, 1)
    )
    torch.testing.assert_close(together.logits(images), single.logits(images))


def test_multi_scale_mirrored_images_give_mirrored_scores(fake_network, raw_images):
    network, images = with_ramp(fake_network(stride=4)), raw_images(1, 3, 20, 28)
    segmenter = Segmenter(network, LABELS, procedure=MultiScale())
    torch.testing.assert_close(
        segmenter.logits(images.flip(-1)), segmenter.logits(images).flip(-1), atol=1e-4, rtol=1e-4
    )


def test_multi_scale_views_have_sizes_that_the_network_takes(fake_network, raw_images):
    network = fake_network(stride=4, multiple=16, minimum_size=32)
    segmenter = Segmenter(network, LABELS, procedure=MultiScale(scales=(0.5, 1.25), flip=False))
    assert segmenter.classes(raw_images(1, 3, 40, 90)).shape == (1, 40, 90)
    assert [tuple(seen.shape[-2:]) for seen in network.seen] == [(32, 48), (64, 112)]


@pytest.mark.parametrize(("size", "is_padded"), [((31, 46), False), ((20, 46), True)])
def test_multi_scale_view_is_stretched_to_a_near_size_and_padded_to_a_far_one(fake_network, size, is_padded):
    network = fake_network(multiple=16)
    images = torch.full((1, 3, 2 * size[0], 2 * size[1]), 200, dtype=torch.uint8)
    scores = Segmenter(network, LABELS, procedure=MultiScale(scales=(0.5,), flip=False)).logits(images)
    assert network.seen[0].shape[-2:] == (32, 48)
    assert bool(network.seen[0][0, :, -1, -1].eq(0).all()) == is_padded
    torch.testing.assert_close(scores, scores[:, :, :1, :1].expand_as(scores))


def test_multi_scale_of_a_network_with_a_margin_mirrors_every_view(fake_network, raw_images):
    images = raw_images(1, 3, 21, 30)
    lost, kept = (
        Segmenter(fake_network(margin=margin), LABELS, procedure=MultiScale(scales=(0.5, 1.0, 1.5)))
        for margin in (3, 0)
    )
    torch.testing.assert_close(lost.logits(images), kept.logits(images))


def test_multi_scale_over_windows_of_a_pointwise_network_equals_whole_views(fake_network, raw_images):
    network, images = fake_network(), raw_images(1, 3, 20, 26)
    whole, windowed = (
        Segmenter(network, LABELS, procedure=MultiScale(scales=(0.5, 1.0, 1.5), windows=windows))
        for windows in (None, Windows(size=9))
    )
    # Windows are brought to the image's size as probabilities, whole views as scores: equal where nothing is resized.
    torch.testing.assert_close(whole.logits(images).softmax(1), windowed.logits(images).softmax(1), atol=0.1, rtol=0)
    assert (whole.classes(images) == windowed.classes(images)).float().mean() > 0.9


def test_multi_scale_classes_equal_argmax_of_logits(fake_network, raw_images):
    segmenter = Segmenter(with_ramp(fake_network(stride=4)), LABELS, procedure=MultiScale(scales=(0.5, 1.5)))
    images = raw_images(2, 3, 18, 25)
    assert torch.equal(segmenter.classes(images).long(), segmenter.logits(images).argmax(1))


def test_multi_scale_probabilities_of_a_segmentation_sum_to_one(fake_network, raw_images):
    segmentation = Segmenter(fake_network(stride=4), LABELS, procedure=MultiScale())(raw_images(3, 18, 25))
    assert segmentation.probabilities.sum(0) == pytest.approx(1, abs=1e-5)
    assert segmentation.mask.shape == (18, 25)


def test_multi_scale_scores_that_are_not_finite_refused(fake_network, raw_images):
    network = fake_network()
    torch.nn.init.constant_(network.mix, float("nan"))
    with pytest.raises(RunError, match="returns scores that are not finite for images of 4 x 5 pixels"):
        Segmenter(network, LABELS, procedure=MultiScale(scales=(0.5,))).classes(raw_images(1, 3, 8, 10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, "there are no scales; give at least one, such as 1.0"),
        ({"scales": (1.0, 0.0)}, "scales are positive numbers, got 0.0 in \\(1.0, 0.0\\)"),
        ({"scales": (float("nan"),)}, "scales are positive numbers, got nan"),
        ({"average": "logit"}, "average is one of probabilities, logits, got 'logit'; did you mean 'logits'"),
        ({"pixels_at_once": 0}, "pixels_at_once is at least 1, got 0"),
    ],
)
def test_multi_scale_settings_that_make_no_sense_refused(settings, message):
    with pytest.raises(InvalidValue, match=message):
        MultiScale(**settings)


def test_segmenter_with_a_procedure_still_checks_its_images(fake_network):
    segmenter = Segmenter(fake_network(), LABELS, procedure=MultiScale())
    with pytest.raises(InvalidValue, match="images are raw pixels, uint8"):
        segmenter.classes(torch.zeros(1, 3, 4, 4))


def test_multi_scale_view_of_more_pixels_than_any_image_is_refused(brightness_network):
    segmenter = Segmenter(brightness_network(), LABELS, procedure=MultiScale(scales=(1.0, 1e4)))
    message = r"scale 10000 makes 80000 x 60000 pixels of 8 x 6, more than .* give a smaller scale"
    with pytest.raises(InvalidValue, match=message):
        segmenter.classes(torch.zeros(1, 3, 8, 6, dtype=torch.uint8))
