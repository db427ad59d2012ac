"""Nearly equal images across splits: the buckets find what comparing every pair finds."""

from __future__ import annotations

import numpy as np

from perpixel.data.inspection.duplicates import most_alike_elsewhere
from perpixel.data.inspection.records import THUMBNAIL


def pictures(count, seed):
    """Smooth pictures, so that chance alone makes some alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (count, 4, 4)).astype(np.float64)
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2) + rng.normal(0, 12, (count, THUMBNAIL, THUMBNAIL))
    return fine.clip(0, 255).astype(np.uint8).reshape(count, -1)


def plain(thumbnails, splits):
    """Compares every pair."""
    vectors = thumbnails.astype(np.float64)
    vectors -= vectors.mean(1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    similar[splits[:, None] == splits[None]] = 0
    best = similar.max(1)
    pairs = set()
    for index, partner in enumerate(similar.argmax(1)):
        if best[index] >= max(0.985, best[partner] - 0.001):
            pairs.add(tuple(sorted((index, int(partner)))))
    return pairs


def test_most_alike_elsewhere_agrees_with_comparing_every_pair() -> None:
    thumbnails = pictures(300, 0)
    rng = np.random.default_rng(1)
    for copy, of in ((10, 200), (20, 210), (30, 220), (40, 230)):
        noisy = thumbnails[of].astype(np.float64) * 0.9 + 8 + rng.normal(0, 3, thumbnails.shape[1])
        thumbnails[copy] = noisy.clip(0, 255).astype(np.uint8)
    splits = (np.arange(300) >= 150).astype(np.int64)
    found = {(first, second) for first, second, _ in most_alike_elsewhere(thumbnails, splits)}
    assert found == plain(thumbnails, splits)
    assert {(10, 200), (20, 210), (30, 220), (40, 230)} <= found


def test_most_alike_elsewhere_same_split_is_not_compared() -> None:
    thumbnails = np.repeat(pictures(1, 2), 4, axis=0)
    assert most_alike_elsewhere(thumbnails, np.zeros(4, dtype=np.int64)) == []


def test_most_alike_elsewhere_mirrored_copy_is_found_only_when_asked() -> None:
    thumbnails = pictures(20, 3)
    thumbnails[15] = thumbnails[2].reshape(THUMBNAIL, THUMBNAIL)[:, ::-1].reshape(-1)
    splits = (np.arange(20) >= 10).astype(np.int64)
    assert most_alike_elsewhere(thumbnails, splits) == []
    assert [pair[:2] for pair in most_alike_elsewhere(thumbnails, splits, mirrored=True)] == [(2, 15)]


def test_most_alike_elsewhere_of_a_chain_gives_the_closest_pair() -> None:
    thumbnails = pictures(6, 4)
    rng = np.random.default_rng(5)
    for index, noise in ((3, 0.0), (4, 6.0), (5, 7.0)):  # one copy, and its neighbours in a film
        frame = thumbnails[0].astype(np.float64) + rng.normal(0, 1, thumbnails.shape[1]) * noise
        thumbnails[index] = frame.clip(0, 255).astype(np.uint8)
    splits = np.array([0, 0, 0, 1, 1, 1])
    assert [pair[:2] for pair in most_alike_elsewhere(thumbnails, splits)] == [(0, 3)]


def test_most_alike_elsewhere_without_contrast_is_like_nothing() -> None:
    thumbnails = np.full((2, THUMBNAIL * THUMBNAIL), 90, dtype=np.uint8)
    assert most_alike_elsewhere(thumbnails, np.array([0, 1])) == []
