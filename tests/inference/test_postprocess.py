"""Thresholds per class, and post-processing as a Segmenter's last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.errors import ConfigError, InvalidValue
from perpixel.inference import (
    PostProcessing,
    Segmenter,
    parse_thresholds,
    remove_small_regions,
    thresholded_classes,
)
from perpixel.inference.dense_crf import DenseCRF
from perpixel.inference.postprocess import final_classes
from perpixel.inference.score_map import ScoreMap
from perpixel.labels import LabelSpace

THREE = LabelSpace.numbered(3)
PIXELS = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.35, 0.45], [0.4, 0.4, 0.2]]).T[:, None]  # (3, 1, 4)


@pytest.mark.parametrize(
    ("thresholds", "fallback", "expected"),
    [
        ((0, 0, 0), "next", [0, 0, 2, 0]),
        ((0.6, 0, 0), "next", [0, 1, 2, 1]),  # a pixel at its threshold keeps its class
        ((0.6, 0, 0), "ignore", [0, 255, 2, 255]),
        ((0.6, 0, 0.5), 1, [0, 1, 1, 1]),
        ((0.6, 0.4, 0.5), "next", [0, 1, 2, 1]),  # of the third pixel no class reaches its threshold: its best stays
        ((0.55, 0.5, 0.5), 2, [0, 2, 2, 2]),
    ],
)
def test_thresholds_worked_by_hand(thresholds: tuple[float, ...], fallback: Any, expected: list[int]) -> None:
    assert thresholded_classes(PIXELS, thresholds, fallback=fallback).tolist() == [expected]


def plain_thresholds(p: np.ndarray, least: tuple[float, ...], fallback: str | int) -> int:
    """One pixel, as the definition says it."""
    order = sorted(range(len(p)), key=lambda k: (-p[k], k))
    if p[order[0]] >= np.float32(least[order[0]]):
        return order[0]
    if fallback == "next":
        return next((k for k in order if p[k] >= np.float32(least[k])), order[0])
    return 255 if fallback == "ignore" else int(fallback)


@pytest.mark.parametrize("fallback", ["next", "ignore", 2])
def test_thresholds_equal_the_plain_twin_in_batches(fallback: Any) -> None:
    random = torch.Generator().manual_seed(4)
    probabilities = torch.randn(2, 5, 6, 7, generator=random).softmax(1)
    least = (0.3, 0.5, 0.0, 0.9, 0.45)
    found = thresholded_classes(probabilities, least, fallback=fallback)
    for (b, y, x), value in np.ndenumerate(found.numpy()):
        assert value == plain_thresholds(probabilities[b, :, y, x].numpy(), least, fallback)
    assert torch.equal(found[1], thresholded_classes(probabilities[1], least, fallback=fallback))


def test_permuted_classes_permute_what_reaches_its_threshold() -> None:
    probabilities = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(1)).softmax(0)
    least, order = torch.tensor([0.4, 0.2, 0.6, 0.3]), torch.tensor([2, 0, 3, 1])
    found = thresholded_classes(probabilities[order], least[order].tolist())
    assert torch.equal(order[found.long()], thresholded_classes(probabilities, least.tolist()).long())


@pytest.mark.parametrize(
    ("probabilities", "thresholds", "options", "message"),
    [
        (torch.ones(2, 3), (0.0, 0.0), {}, r"probabilities are floats \(K, H, W\)"),
        (PIXELS, (0.5,), {}, "1 thresholds for 3 classes"),
        (PIXELS, (0.5, 1.5, 0), {}, r"threshold of 'class 1' is a number in \[0, 1\], got 1.5"),
        (PIXELS, (0.5, 0.5, 0), {"fallback": "best"}, "the fallback is next, ignore or a class number, got 'best'"),
        (PIXELS, (0.5, 0.5, 0), {"fallback": 3}, r"the fallback class is in \[0, 2\], got 3"),
        (PIXELS * torch.nan, (0.5, 0.5, 0), {}, r"12 probabilities are not finite, the first at index \(0, 0, 0\)"),
        (PIXELS * 4, (0.5, 0.5, 0), {}, "got values from 0.4 to 2.4; for scores, take their softmax"),
    ],
)
def test_thresholds_bad_arguments_are_refused(probabilities: Any, thresholds: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        thresholded_classes(probabilities, thresholds, **options)


# What a command line gives


def test_parse_thresholds_reads_pairs_and_files(tmp_path: Path) -> None:
    assert parse_thresholds("car=0.5, traffic light =0.25") == {"car": 0.5, "traffic light": 0.25}
    (tmp_path / "t.yaml").write_text("car: 0.5\nyes, this: 1\n", encoding="utf-8")
    assert parse_thresholds(str(tmp_path / "t.yaml")) == {"car": 0.5, "yes, this": 1.0}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("car=high", InvalidValue, r"threshold of 'car' is a number in \[0, 1\], got 'high'"),
        ("car=2", InvalidValue, "threshold of 'car' .* got 2.0"),
        ("car=0.5,0.3", ConfigError, "'0.3' is not name=number; names with commas go into a file"),
        ("nowhere.yaml", ConfigError, "thresholds 'nowhere.yaml' cannot be read"),
    ],
)
def test_parse_thresholds_other_text_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_thresholds(text)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [("- 0.5\n", ConfigError, "thresholds are a mapping from class name"), ("car: true\n", InvalidValue, "got True")],
)
def test_parse_thresholds_other_file_is_refused(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "t.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        parse_thresholds(str(tmp_path / "t.yaml"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_region": -1}, "min_region is a number of pixels, 0 or more, got -1"),
        ({"connectivity": 5}, "connectivity is 4 or 8, got 5"),
        ({"vote": "random"}, "vote is one of border, scores, got 'random'"),
        ({"thresholds": {"a": 7}}, "threshold of 'a'"),
    ],
)
def test_postprocessing_out_of_range_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        PostProcessing(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": {"clas 1": 0.5}}, "threshold for 'clas 1', which is no class .*did you mean 'class 1'"),
        ({"fallback": "sky"}, "the fallback is next, ignore or a class of label space '3 classes', got 'sky'"),
    ],
)
def test_segmenter_with_unknown_classes_is_refused(fake_network: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Segmenter(fake_network(), THREE, postprocessing=PostProcessing(**options))


# As a Segmenter's last step


def test_segmenter_without_work_to_do_gives_its_own_classes(fake_network: Any, raw_images: Any) -> None:
    images = raw_images(2, 3, 9, 11)
    plain = Segmenter(fake_network(stride=2), THREE)
    empty = Segmenter(fake_network(stride=2), THREE, postprocessing=PostProcessing(min_region=1, fallback="ignore"))
    assert torch.equal(empty.classes(images), plain.classes(images))


@pytest.mark.parametrize("vote", ["border", "scores"])
@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=2, bilateral_weight=0.0)])
def test_segmenter_thresholds_then_removes_regions_after_the_crf(
    fake_network: Any, raw_images: Any, vote: Any, crf: DenseCRF | None
) -> None:
    images = raw_images(2, 3, 12, 14)
    after = PostProcessing(min_region=4, vote=vote, thresholds={"class 0": 0.9}, fallback="class 2")
    segmenter = Segmenter(fake_network(), THREE, crf=crf, postprocessing=after)
    probabilities = segmenter.logits(images).softmax(1)
    limited = thresholded_classes(probabilities, (0.9, 0, 0), fallback=2)
    given = probabilities.numpy() if vote == "scores" else [None, None]
    expected = [remove_small_regions(m, 4, scores=s) for m, s in zip(limited.numpy(), given, strict=True)]
    found = segmenter.classes(images).numpy()
    assert np.array_equal(found, expected)
    assert np.array_equal(segmenter(images[1]).mask, found[1])
    plain = Segmenter(fake_network(), THREE, crf=crf)
    assert not np.array_equal(plain.classes(images).numpy(), found)
    assert torch.equal(plain.logits(images), segmenter.logits(images))


def test_final_classes_with_ignore_leaves_pixels_out() -> None:
    scores = ScoreMap(logits=PIXELS[None].log(), covered=(1, 4), size=(1, 4), align_corners=False)
    after = PostProcessing(thresholds={"class 0": 0.55}, fallback="ignore", min_region=2)
    assert after.leaves_pixels_out
    assert final_classes(scores, after, THREE).tolist() == [[[0, 255, 2, 255]]]
