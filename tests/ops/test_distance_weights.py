"""ops.distance_weights against one distance transform per object."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops import distance_weights, instance_ids
from perpixel.ops.distance_weights import border_term, class_balance, cut_touching

QUICK = settings(deadline=None, max_examples=80)


def slow_term(instances: Tensor, w0: float, sigma: float, *, inside: bool) -> Tensor:
    """The formula pixel for pixel, from the distance to every single object."""
    maps = []
    for image in instances.numpy():
        distances = [ndimage.distance_transform_edt(image != i) for i in np.unique(image[image > 0])]
        term = np.zeros(image.shape)
        if len(distances) > 1:
            nearest = np.sort(np.stack(distances), axis=0)
            term = w0 * np.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma**2))
        maps.append(term if inside else np.where(image == 0, term, 0.0))
    return torch.from_numpy(np.stack(maps)).float()


def random_instances(size: tuple[int, int], count: int, seed: int, batch: int = 2) -> Tensor:
    """Blobs and scattered pixels; numbers may repeat, so that objects need not be connected."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((batch, *size), dtype=np.int64)
    for image in maps:
        for _ in range(count):
            top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
            height, width = rng.integers(1, 6, 2)
            image[top : top + height, left : left + width] = rng.integers(1, count + 1)
    return torch.from_numpy(maps)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    count=st.integers(0, 9),
    w0=st.floats(0.5, 50),
    sigma=st.floats(0.5, 30),
    inside=st.booleans(),
    seed=st.integers(0, 10_000),
)
@QUICK
def test_border_term_equals_one_distance_transform_per_object(
    size: tuple[int, int], count: int, w0: float, sigma: float, inside: bool, seed: int
) -> None:
    instances = random_instances(size, count, seed)
    ours = border_term(instances, w0=w0, sigma=sigma, inside=inside)
    torch.testing.assert_close(ours, slow_term(instances, w0, sigma, inside=inside), rtol=1e-5, atol=1e-6)


def test_border_term_beyond_its_reach_is_negligible_and_not_wrong() -> None:
    instances = random_instances((60, 300), 6, seed=3)
    ours = border_term(instances, w0=10.0, sigma=1.5)
    torch.testing.assert_close(ours, slow_term(instances, 10.0, 1.5, inside=False), rtol=1e-5, atol=2e-7)


def test_border_term_between_two_pixels_is_the_formula() -> None:
    instances = torch.tensor([[[1, 0, 0, 0, 2]]])
    expected = 10 * math.exp(-(4**2) / (2 * 5**2))
    assert border_term(instances)[0, 0].tolist() == pytest.approx([0, expected, expected, expected, 0])
    inside = border_term(instances, inside=True)[0, 0]
    assert inside.tolist() == pytest.approx([expected] * 5)  # d1 = 0 and d2 = 4


def test_border_term_without_a_second_object_is_zero() -> None:
    one = torch.zeros(2, 9, 9, dtype=torch.int32)
    one[0, 3:5, 3:5] = 7
    assert not border_term(one).any()
    assert not border_term(torch.tensor([[[1, 0, 2]]]), w0=0.0).any()


def test_border_term_treats_each_image_of_a_batch_alone() -> None:
    instances = random_instances((20, 30), 6, seed=5, batch=3)
    whole = border_term(instances)
    for image, term in zip(instances, whole, strict=True):
        assert torch.equal(border_term(image[None])[0], term)


def test_instance_ids_number_the_components_of_each_class() -> None:
    target = torch.tensor([[[1, 1, 0, 2], [0, 0, 1, 2], [255, 1, 0, 2]]], dtype=torch.uint8)
    assert instance_ids(target).tolist() == [[[1, 1, 0, 4], [0, 0, 2, 4], [0, 3, 0, 4]]]
    assert instance_ids(target, connectivity=8).tolist() == [[[1, 1, 0, 2], [0, 0, 1, 2], [0, 1, 0, 2]]]
    assert instance_ids(target, background=2).unique().tolist() == list(range(7))  # three of class 0, three of class 1


def test_distance_weights_of_classes_are_balance_plus_border_term_and_zero_where_ignored() -> None:
    target = torch.zeros(2, 12, 16, dtype=torch.uint8)
    target[0, 2:6, 1:6] = 1
    target[0, 2:6, 8:15] = 1
    target[:, 10:] = 255
    weights = distance_weights(target, w0=7.0, sigma=3.0)
    expected = class_balance(target) + border_term(instance_ids(target), w0=7.0, sigma=3.0)
    assert torch.allclose(weights, expected.masked_fill(target == 255, 0.0))
    assert weights.dtype == torch.float32
    assert weights[0, 3, 6] > 3
    assert not weights[:, 10:].any()
    flat = distance_weights(target, w0=7.0, sigma=3.0, balance="none")
    assert flat[1, 0, 0] == 1


def test_distance_weights_of_given_instances_replace_the_components() -> None:
    target = torch.ones(1, 6, 12, dtype=torch.uint8)
    target[0, :, 5:7] = 0
    instances = torch.zeros(1, 6, 12, dtype=torch.int64)
    instances[0, :, :5] = 4
    assert distance_weights(target, balance="none", instances=instances).unique().tolist() == [1]
    instances[0, :, 7:] = 9
    given = distance_weights(target, balance="none", instances=instances)
    assert torch.equal(given, distance_weights(target, balance="none"))
    assert given.max() > 1


def test_class_balance_is_inverse_frequency_with_mean_one() -> None:
    target = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 255]]], dtype=torch.uint8)
    expected = [[7 / 12, 7 / 12, 7 / 12, 7 / 2], [7 / 12, 7 / 12, 7 / 12, 0]]
    assert class_balance(target)[0].numpy() == pytest.approx(np.array(expected))
    assert class_balance(target)[target != 255].mean().item() == pytest.approx(1)
    assert not class_balance(torch.full((1, 3, 3), 255)).any()


def test_cut_touching_separates_by_two_pixels_and_leaves_lonely_objects() -> None:
    instances = torch.zeros(1, 4, 8, dtype=torch.int32)
    instances[0, :, :3] = 1
    instances[0, :, 3:6] = 2
    cut = cut_touching(instances)
    assert cut[0, 0].tolist() == [1, 1, 0, 0, 2, 2, 0, 0]
    assert torch.equal(cut_touching(cut), cut)
    diagonal = torch.tensor([[[1, 0], [0, 2]]])
    assert not cut_touching(diagonal).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w0": -1.0}, "w0 must be >= 0 and sigma > 0 pixels, got -1.0"),
        ({"sigma": 0.0}, "got 10.0 and 0.0"),
        ({"sigma": float("nan")}, "sigma > 0"),
        ({"balance": "median"}, "balance is 'frequency' or 'none', got 'median'"),
        ({"connectivity": 6}, "connectivity is 4 or 8 neighbours, got 6"),
        ({"instances": torch.zeros(1, 4, 5)}, r"instances \(1, 4, 5\) and labels \(1, 4, 4\) differ"),
    ],
)
def test_distance_weights_wrong_argument_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        distance_weights(torch.zeros(1, 4, 4, dtype=torch.uint8), **options)  # type: ignore[arg-type]


def test_distance_weights_of_a_single_map_without_batch_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"labels \(B, H, W\), got shape \(4, 4\)"):
        distance_weights(torch.zeros(4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (torch.zeros(1, 0, 4, dtype=torch.long), r"\(B, H, W\) without empty sides, got \(1, 0, 4\)"),
        (torch.tensor([[[1, 2**32 + 1]]]), r"lie in \[0, 2147483647\], got 1 to 4294967297; renumber"),
        (torch.tensor([[[-1, 0]]]), "got -1 to 0"),
    ],
)
def test_border_term_objects_that_cannot_be_numbered_are_refused(objects: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        border_term(objects)


def test_cut_touching_tells_large_numbers_apart() -> None:
    assert not cut_touching(torch.tensor([[[2**24, 2**24 + 1]]])).any()
