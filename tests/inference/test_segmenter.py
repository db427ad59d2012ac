"""Segmenter: sizes, padding, margins and kinds of images, with networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.inference import Segmenter
from perpixel.inference.dense_crf import DenseCRF, dense_crf
from perpixel.labels import LabelSpace
from perpixel.ops.normalize import normalize
from perpixel.ops.resize import resize
from perpixel.types import Preprocessing, SegOutput

LABELS = LabelSpace.numbered(3)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7), (64, 65), (130, 97)])
def test_segmenter_classes_any_size_equal_argmax_of_full_scores(fake_network, raw_images, align_corners, size):
    segmenter = Segmenter(fake_network(stride=4, align_corners=align_corners), LABELS)
    images = raw_images(2, 3, *size)
    logits = segmenter.logits(images)
    classes = segmenter.classes(images)
    assert logits.shape == (2, 3, *size)
    assert logits.dtype == torch.float32
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long(), logits.argmax(1))


@pytest.mark.parametrize("align_corners", [False, True])
def test_segmenter_logits_equal_resized_output_of_the_network(fake_network, raw_images, align_corners):
    network = fake_network(stride=4, align_corners=align_corners)
    images = raw_images(1, 3, 30, 41)
    expected = network.eval()(normalize(images, network.preprocessing)).logits
    expected = resize(expected, (30, 41), align_corners=align_corners)
    torch.testing.assert_close(Segmenter(network, LABELS).logits(images), expected.detach())


def test_segmenter_crf_refines_the_probabilities_at_image_size(fake_network, raw_images):
    network, images = fake_network(stride=4), raw_images(2, 3, 30, 41)
    crf = DenseCRF(bilateral_width=9.0, color_width=20.0, iterations=2)
    plain, refining = Segmenter(network, LABELS), Segmenter(network, LABELS, crf=crf)
    expected = dense_crf(plain.logits(images).softmax(1), images, crf)
    torch.testing.assert_close(refining.logits(images).softmax(1), expected)
    assert torch.equal(refining.classes(images).long(), expected.argmax(1))
    single = refining(images[0])
    torch.testing.assert_close(torch.as_tensor(single.probabilities), expected[0])
    assert not torch.allclose(expected, plain.logits(images).softmax(1))


def test_segmenter_equal_scores_choose_the_lowest_class(fake_network, raw_images):
    network = fake_network()
    torch.nn.init.zeros_(network.mix)
    assert not Segmenter(network, LABELS).classes(raw_images(1, 3, 4, 4)).any()


@given(st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_segmenter_small_image_is_padded_with_the_padding_value_and_cut_back(fake_network, raw_images, height, width):
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), pad_value=(0.4, 0.5, 0.6))
    network = fake_network(preprocessing=preprocessing, minimum_size=6, multiple=4)
    images = raw_images(1, 3, height, width)
    logits = Segmenter(network, LABELS).logits(images)
    seen = network.seen[-1]
    assert seen.shape[-2:] == torch.Size(network.valid_size(height, width))
    torch.testing.assert_close(seen[:, :, :height, :width], normalize(images, preprocessing))
    fill = torch.tensor([(0.4 - 0.1) / 0.5, (0.5 - 0.2) / 0.25, (0.6 - 0.3) / 2.0]).view(1, 3, 1, 1)
    below, right = seen[:, :, height:], seen[:, :, :, width:]
    torch.testing.assert_close(below, fill.expand_as(below))
    torch.testing.assert_close(right, fill.expand_as(right))
    unpadded = Segmenter(fake_network(preprocessing=preprocessing), LABELS).logits(images)
    torch.testing.assert_close(logits, unpadded)


def test_segmenter_padding_without_value_is_zero_for_the_network(fake_network, raw_images):
    network = fake_network(preprocessing=Preprocessing(channel_order="bgr"), minimum_size=5)
    Segmenter(network, LABELS).classes(raw_images(1, 3, 2, 2))
    assert not network.seen[-1][:, :, 2:].any()


def test_segmenter_network_that_rounds_sizes_down_gets_a_size_that_holds_the_image(fake_network, raw_images):
    network = fake_network()
    network.valid_size = lambda height, width: (height // 8 * 8, width // 8 * 8)
    assert Segmenter(network, LABELS).classes(raw_images(1, 3, 9, 16)).shape == (1, 9, 16)
    assert network.seen[-1].shape[-2:] == (16, 16)


def test_segmenter_network_that_takes_no_such_size_refused(fake_network, raw_images):
    network = fake_network()
    network.valid_size = lambda height, width: (8, 8)
    with pytest.raises(RunError, match="gives no size that holds 9 x 8 pixels"):
        Segmenter(network, LABELS).classes(raw_images(1, 3, 9, 8))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (5, 4), (12, 20)])
def test_segmenter_margin_mirrors_the_image_beyond_its_edges(fake_network, raw_images, height, width):
    network = fake_network(margin=3, multiple=4)
    images = raw_images(1, 3, height, width)
    logits = Segmenter(network, LABELS).logits(images)
    pixels = images[0].permute(1, 2, 0).numpy()
    bottom, right = (s - m for s, m in zip(network.valid_size(height + 6, width + 6), (height, width), strict=True))
    mirrored = np.pad(pixels, ((3, bottom - 3), (3, right - 3), (0, 0)), mode="reflect")
    torch.testing.assert_close(network.seen[-1][0].permute(1, 2, 0), torch.from_numpy(mirrored) / 255)
    torch.testing.assert_close(logits, Segmenter(fake_network(), LABELS).logits(images))


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_segmenter_flipped_image_gives_flipped_classes(fake_network, raw_images, height, width, seed):
    segmenter = Segmenter(fake_network(), LABELS)
    images = raw_images(1, 3, height, width, seed=seed)
    assert torch.equal(segmenter.classes(images.flip(-1)), segmenter.classes(images).flip(-1))
    assert torch.equal(segmenter.classes(images.flip(-2)), segmenter.classes(images).flip(-2))


def test_segmenter_batch_equals_single_images(fake_network, raw_images):
    segmenter = Segmenter(fake_network(stride=2), LABELS)
    images = raw_images(3, 3, 9, 10)
    single = torch.cat([segmenter.classes(images[i : i + 1]) for i in range(3)])
    assert torch.equal(segmenter.classes(images), single)


def test_segmenter_16_bit_images_equal_8_bit_of_the_same_intensity(fake_network, raw_images):
    segmenter = Segmenter(fake_network(), LABELS)
    images = raw_images(1, 3, 6, 6)
    torch.testing.assert_close(segmenter.logits(images.int() * 257), segmenter.logits(images))


def test_segmenter_restores_the_mode_of_every_module(fake_network, raw_images):
    network = fake_network().train()
    frozen = torch.nn.BatchNorm2d(3).eval()
    network.frozen = frozen
    before = network.norm.running_mean.clone()
    Segmenter(network, LABELS).classes(raw_images(1, 3, 4, 4))
    assert network.training
    assert network.norm.training
    assert not frozen.training
    assert torch.equal(network.norm.running_mean, before)


def test_segmenter_restores_the_mode_after_a_failure(fake_network, raw_images):
    network = fake_network().train()
    network.mix = torch.nn.Parameter(torch.zeros(3, 5))
    with pytest.raises(RuntimeError):
        Segmenter(network, LABELS).classes(raw_images(1, 3, 4, 4))
    assert network.training


def test_segmenter_bf16_stays_close_to_fp32(fake_network, raw_images):
    network = fake_network()
    images = raw_images(1, 3, 8, 8)
    half = Segmenter(network, LABELS, precision="bf16").logits(images)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, Segmenter(network, LABELS).logits(images), rtol=0.05, atol=0.05)


def test_segmenter_float64_network_is_fed_float64(fake_network, raw_images):
    network = fake_network().double()
    assert Segmenter(network, LABELS).logits(raw_images(1, 3, 4, 4)).dtype == torch.float32
    assert network.seen[-1].dtype == torch.float64


def test_segmenter_scores_that_are_not_finite_refused(fake_network, raw_images):
    network = fake_network()
    torch.nn.init.constant_(network.mix, float("nan"))
    with pytest.raises(RunError, match="not finite for images of 4 x 5 pixels in fp32"):
        Segmenter(network, LABELS, name="broken").classes(raw_images(1, 3, 4, 5))


def kinds_of_images(pixels, folder):
    """The same (C, H, W) uint8 pixels in every form that a Segmenter takes."""
    array = pixels.permute(1, 2, 0).numpy()
    path = folder / "image.png"
    Image.fromarray(array).save(path)
    yield from (path, str(path), Image.fromarray(array), array, pixels)
    wide = array.astype(np.uint16) * 257
    yield from (wide, wide.astype(np.int32), torch.from_numpy(wide.astype(np.int32)).permute(2, 0, 1))


def test_segmenter_every_kind_of_image_gives_the_same_mask(fake_network, raw_images, tmp_path):
    segmenter = Segmenter(fake_network(stride=2), LABELS)
    pixels = raw_images(3, 7, 9)
    expected = segmenter.classes(pixels[None])[0].numpy()
    for image in kinds_of_images(pixels, tmp_path):
        result = segmenter(image)
        assert result.mask.dtype == np.uint8
        np.testing.assert_array_equal(result.mask, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_segmenter_grey_image_stands_in_for_rgb(fake_network, mode):
    segmenter = Segmenter(fake_network(), LABELS)
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    assert image.mode == mode
    rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(segmenter(image).mask, segmenter(rgb).mask)
    np.testing.assert_array_equal(segmenter(grey).mask, segmenter(rgb).mask)


def test_segmenter_rgb_image_becomes_grey_for_a_grey_network(fake_network):
    network = fake_network(preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)))
    Segmenter(network, LABELS)(np.full((2, 2, 3), 51, np.uint8))
    torch.testing.assert_close(network.seen[-1], torch.full((1, 1, 2, 2), (0.2 - 0.5) / 0.5))


def test_segmenter_does_not_write_to_the_given_array(fake_network):
    array = np.full((3, 3, 3), 7, np.uint8)
    array.flags.writeable = False
    Segmenter(fake_network(), LABELS)(array)
    assert (array == 7).all()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.zeros((2, 2, 4), np.uint8),
            DataError,
            "the given ndarray: the image has 4 channels and the network takes 3",
        ),
        (np.zeros((2, 2, 3), np.float32), InvalidValue, "uint8, or 16-bit values in uint16 or int32, got float32"),
        (np.zeros((0, 2, 3), np.uint8), InvalidValue, r"got shape \(0, 2, 3\)"),
        (np.zeros(4, np.uint8), InvalidValue, r"got shape \(4, 1\)|got shape \(4,\)"),
        (np.full((2, 2), 70000, np.int32), InvalidValue, r"\[0, 65535\], got values from 70000 to 70000"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), InvalidValue, r"\(C, H, W\), got shape \(1, 3, 2, 2\)"),
        (Image.new("F", (2, 2)), InvalidValue, "mode F holds fractions"),
        ("missing.png", DataError, "missing.png: there is no such file"),
        ([[0]], InvalidValue, "a path, a PIL image, an array or a tensor, got list"),
    ],
)
def test_segmenter_unusable_image_refused(fake_network, image, error, message):
    with pytest.raises(error, match=message):
        Segmenter(fake_network(), LABELS)(image)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (1, 3, 0, 4)])
def test_segmenter_batch_of_other_shape_refused(fake_network, shape):
    with pytest.raises(InvalidValue, match=r"images must be \(B, 3, H, W\) without empty sides"):
        Segmenter(fake_network(), LABELS).classes(torch.zeros(shape, dtype=torch.uint8))


def test_segmenter_normalised_batch_refused(fake_network):
    with pytest.raises(InvalidValue, match=r"raw pixels, uint8 or 16-bit values in int32, got torch\.float32"):
        Segmenter(fake_network(), LABELS).logits(torch.zeros(1, 3, 2, 2))


def test_segmenter_labels_of_other_number_refused(fake_network):
    with pytest.raises(InvalidValue, match="scores 3 classes and label space '2 classes' has 2"):
        Segmenter(fake_network(), LabelSpace.numbered(2))


def test_segmenter_unknown_precision_refused(fake_network):
    with pytest.raises(InvalidValue, match="fp32, bf16, fp16, got 'fp8'"):
        Segmenter(fake_network(), LABELS, precision="fp8")


@pytest.mark.parametrize(("device", "message"), [("gpu0", "no device 'gpu0'"), ("cuda:99", "CUDA devices here")])
def test_segmenter_unknown_device_refused(fake_network, device, message):
    with pytest.raises(InvalidValue, match=message):
        Segmenter(fake_network(), LABELS, device=device)


def test_segmenter_repr_is_short(fake_network):
    text = repr(Segmenter(fake_network(), LABELS, provenance={"recipe": "x"}))
    assert text == "Segmenter(FakeNetwork, 3 classes, cpu, fp32)"


def test_segmenter_ignores_further_outputs(fake_network, raw_images):
    network = fake_network()
    plain = Segmenter(network, LABELS).classes(raw_images(1, 3, 4, 4))
    forward = network.forward
    network.forward = lambda images: SegOutput(forward(images).logits, deep=(torch.zeros(1, 3, 1, 1),))
    assert torch.equal(Segmenter(network, LABELS).classes(raw_images(1, 3, 4, 4)), plain)
