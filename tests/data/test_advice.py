"""Advice follows the counts, and each one says which."""

from __future__ import annotations

import numpy as np
import pytest

from perpixel.config import parse_overrides
from perpixel.data.advice import Advice, advise, overrides_of
from perpixel.data.summary import SplitSummary
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace


def summary(pixels: list[int], images: list[int], sizes: dict[tuple[int, int], int]) -> SplitSummary:
    total = sum(sizes.values())
    return SplitSummary(
        images=total,
        unlabelled=0,
        pixels_per_class=tuple(pixels),
        images_per_class=tuple(images),
        pixels_of_images_with_class=tuple(pixels),
        ignored_pixels=0,
        sizes=sizes,
        all_ignored=(),
        images_turned=(),
        masks_turned=(),
        class_presence=np.ones((total, len(pixels)), dtype=bool),
    )


def by_what(advice: tuple[Advice, ...]) -> dict[str, Advice]:
    return {entry.what: entry for entry in advice}


def test_advise_balanced_small_images_changes_only_the_crop() -> None:
    found = by_what(advise(summary([50, 50, 60], [9, 9, 9], {(130, 97): 9}), LabelSpace.numbered(3)))
    assert found["class weights"].choice == "none"
    assert found["sampler"].choice == "uniform"
    assert found["crop size"].choice == "128 x 96"
    assert "whole image" in found["crop size"].reason
    assert overrides_of(tuple(found.values())) == ("data.crop_size=[128, 96]",)


def test_advise_rare_class_weighs_it_and_draws_windows_around_it() -> None:
    found = by_what(advise(summary([99_500, 500, 30_000], [90, 5, 50], {(400, 900): 90}), LabelSpace.numbered(3)))
    assert found["class weights"].overrides == ("class_weights=sqrt_median_frequency",)
    assert "199 times" in found["class weights"].reason
    assert found["sampler"].overrides == ("data.class_crop=0.5",)
    assert "class 1 (0.38 %, 5.6 % of the images)" in found["sampler"].reason
    assert found["crop size"].choice == "384 x 512"


def test_advise_two_classes_with_tiny_foreground_adds_dice() -> None:
    found = by_what(advise(summary([99_000, 1000], [9, 9], {(64, 64): 9}), LabelSpace.numbered(2)))
    assert found["loss"].choice == "cross-entropy and Dice"
    (override,) = parse_overrides(found["loss"].overrides)
    assert [term["loss"] for term in override.value] == ["cross_entropy", "dice"]


def test_advise_absent_class_is_no_rare_class() -> None:
    found = by_what(advise(summary([50, 0, 60], [9, 0, 9], {(64, 64): 9}), LabelSpace.numbered(3)))
    assert found["class weights"].choice == "none"
    assert found["sampler"].choice == "uniform"


def test_advise_of_nothing_or_of_too_small_crops_raises() -> None:
    with pytest.raises(DataError, match="every pixel of this split is ignored"):
        advise(summary([0, 0], [0, 0], {(8, 8): 1}), LabelSpace.numbered(2))
    with pytest.raises(InvalidValue, match="longest_crop is at least 32 pixels, got 31"):
        advise(summary([1, 1], [1, 1], {(8, 8): 1}), LabelSpace.numbered(2), longest_crop=31)
