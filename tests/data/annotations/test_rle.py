"""Run lengths: by hand, against the COCO API on random bitmaps, and everything malformed refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_masks

from perpixel.data.annotations.rle import bitmap_of, counts_of, pack_counts, unpack_counts
from perpixel.errors import DataError

bitmaps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 1))


def coco_text(bitmap: np.ndarray) -> str:
    return coco_masks.encode(np.asfortranarray(bitmap))["counts"].decode("ascii")


def packed_plainly(counts: list[int]) -> str:
    """The plain twin: one number, one group of bits after the other."""
    text = ""
    for index, count in enumerate(counts):
        rest = count - (counts[index - 2] if index > 2 else 0)
        while True:
            group, rest = rest & 31, rest >> 5
            done = rest == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if done else 32))
            if done:
                break
    return text


def unpacked_plainly(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value += (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def test_counts_of_goes_down_the_columns_and_starts_outside() -> None:
    bitmap = np.array([[0, 1, 1], [0, 0, 1]])
    assert counts_of(bitmap).tolist() == [2, 1, 1, 2]
    assert counts_of(bitmap, by_columns=False).tolist() == [1, 2, 2, 1]
    assert counts_of(np.ones((2, 2))).tolist() == [0, 4]
    assert counts_of(np.zeros((2, 2))).tolist() == [4]
    assert counts_of(np.zeros((0, 4))).tolist() == []


@settings(max_examples=80, deadline=None)
@given(bitmaps)
def test_packed_runs_are_those_of_the_coco_api_and_come_back(bitmap: np.ndarray) -> None:
    counts = counts_of(bitmap)
    assert pack_counts(counts) == coco_text(bitmap)
    assert unpack_counts(coco_text(bitmap)).tolist() == counts.tolist()
    np.testing.assert_array_equal(bitmap_of(counts, bitmap.shape), bitmap)
    rows = counts_of(bitmap, by_columns=False)
    np.testing.assert_array_equal(bitmap_of(rows, bitmap.shape, by_columns=False), bitmap)


@pytest.mark.parametrize("density", [0.0, 0.002, 0.5, 1.0])
def test_packed_runs_of_large_bitmaps_are_those_of_the_coco_api(density: float) -> None:
    bitmap = (np.random.default_rng(1).random((700, 650)) < density).astype(np.uint8)
    assert pack_counts(counts_of(bitmap)) == coco_text(bitmap)
    assert unpack_counts(coco_text(bitmap)).tolist() == counts_of(bitmap).tolist()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), max_size=12))
def test_packing_agrees_with_its_plain_twin_and_comes_back(counts: list[int]) -> None:
    text = pack_counts(counts)
    assert text == packed_plainly(counts)
    assert unpack_counts(text).tolist() == unpacked_plainly(text) == counts


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20))
def test_unpack_counts_any_text_gives_lengths_or_is_refused(text: str) -> None:
    try:
        counts = unpack_counts(text)
    except DataError:
        return
    assert counts.tolist() == unpacked_plainly(text)
    assert (counts >= 0).all()


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 1", "annotation 5: packed runs hold ' ' at position 1"),
        ("éa", "'é'"),
        ("1p", "'p' at position 1"),
        ("P", "cut short"),
        ("ooooooooo", "cut short"),
        ("1ooooooo0", "at position 1 does not end"),
        ("L", "negative length -4"),
        ("111C", "negative length -12"),
    ],
)
def test_unpack_counts_malformed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unpack_counts(text, source="annotation 5")


def test_bitmap_of_runs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="annotation 5: run lengths add up to 5, and the size 2 x 3 has 6 pixels"):
        bitmap_of([2, 3], (2, 3), source="annotation 5")
    with pytest.raises(DataError, match="must not be negative, got -1"):
        bitmap_of([3, -1, 4], (2, 3))
