"""Confusion matrix: plain loops as oracle, refusals, and the properties that make streaming right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perpixel.errors import InvalidValue
from perpixel.metrics import confusion_matrix

K = 4


def counted_by_loops(prediction, target, num_classes, ignore_index=255):
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for guess, truth in zip(prediction.reshape(-1), target.reshape(-1), strict=True):
        if truth != ignore_index:
            counts[truth, guess] += 1
    return counts


labels = st.sampled_from([*range(K), 255])
shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=6)


@st.composite
def label_pairs(draw):
    shape = draw(shapes)
    target = draw(hnp.arrays(np.uint8, shape, elements=labels))
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, K - 1)))
    return prediction, target


@given(label_pairs())
@settings(max_examples=40, deadline=None)
def test_confusion_matrix_any_labels_equals_loops(pair):
    prediction, target = pair
    np.testing.assert_array_equal(confusion_matrix(prediction, target, K), counted_by_loops(prediction, target, K))


@given(label_pairs(), label_pairs())
@settings(max_examples=30, deadline=None)
def test_confusion_matrix_two_sets_add_up_to_both(first, second):
    both = [np.concatenate([a.reshape(-1), b.reshape(-1)]) for a, b in zip(first, second, strict=True)]
    total = confusion_matrix(*first, K) + confusion_matrix(*second, K)
    np.testing.assert_array_equal(total, confusion_matrix(*both, K))


@given(label_pairs(), st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_confusion_matrix_prediction_under_ignore_has_no_effect(pair, value):
    prediction, target = pair
    changed = np.where(target == 255, np.uint8(value), prediction)
    np.testing.assert_array_equal(confusion_matrix(changed, target, K), confusion_matrix(prediction, target, K))


@given(label_pairs(), st.permutations(range(K)))
@settings(max_examples=30, deadline=None)
def test_confusion_matrix_renumbered_classes_permute_rows_and_columns(pair, order):
    prediction, target = pair
    table = np.full(256, 255, dtype=np.uint8)
    table[:K] = order
    renumbered = confusion_matrix(table[prediction], table[target], K)
    np.testing.assert_array_equal(renumbered[np.ix_(order, order)], confusion_matrix(prediction, target, K))


@pytest.mark.parametrize("prediction_dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("target_dtype", [torch.uint8, torch.int64])
def test_confusion_matrix_tensor_dtypes_give_the_same_tensor(prediction_dtype, target_dtype):
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, K, (2, 9, 7), generator=generator)
    target = torch.randint(0, K, (2, 9, 7), generator=generator)
    target[:, 0] = 255
    counts = confusion_matrix(prediction.to(prediction_dtype), target.to(target_dtype), K)
    assert isinstance(counts, torch.Tensor)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts.numpy(), counted_by_loops(prediction.numpy(), target.numpy(), K))


@pytest.mark.parametrize("ignore_index", [-1, -100, 1000, 0])
def test_confusion_matrix_other_ignore_values_leave_those_pixels_out(ignore_index):
    target = np.array([[1, ignore_index, 3], [2, 1, ignore_index]])
    prediction = np.array([[1, 2, 3], [1, 1, -7]])
    expected = np.zeros((K, K), dtype=np.int64)
    for truth, guess in ((1, 1), (3, 3), (2, 1), (1, 1)):
        expected[truth, guess] += 1
    np.testing.assert_array_equal(confusion_matrix(prediction, target, K, ignore_index=ignore_index), expected)


def test_confusion_matrix_more_than_256_classes_counts_exactly():
    target = np.array([0, 299, 256, 255, 300])
    prediction = np.array([0, 299, 1, 0, 0])
    counts = confusion_matrix(prediction, target, 300, ignore_index=300)
    assert counts[299, 299] == counts[256, 1] == counts[255, 0] == counts[0, 0] == 1
    assert counts.sum() == 4


def test_confusion_matrix_many_chunks_counts_every_pixel():
    side = 1100  # more pixels than two chunks
    target = np.indices((side, side)).sum(0).astype(np.uint8) % K
    counts = confusion_matrix(target, target, K)
    assert counts.sum() == np.trace(counts) == side * side


def test_confusion_matrix_no_valid_pixel_is_zero():
    assert confusion_matrix(np.full((2, 2), 200, np.uint8), np.full((2, 2), 255, np.uint8), K).sum() == 0
    assert confusion_matrix(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64), K).shape == (K, K)


def test_confusion_matrix_view_that_is_not_contiguous_counts_the_view():
    base = torch.arange(64, dtype=torch.uint8).reshape(8, 8) % K
    view = base[::2, 1::3]
    assert confusion_matrix(view, view, K).trace() == view.numel()


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_confusion_matrix_prediction_out_of_range_names_value_count_and_pixel(kind, dtype):
    target = np.zeros((2, 3), dtype)
    prediction = np.array([[0, 0, 0], [0, 7, 7]], dtype)
    with pytest.raises(InvalidValue, match=r"prediction holds 7 on 2 valid pixels \(first at \(1, 1\): 7\).*0\.\.3"):
        confusion_matrix(kind(prediction), kind(target), K)


@pytest.mark.parametrize("value", [-1, 4, 254, 70000])
def test_confusion_matrix_target_out_of_range_names_value_count_and_pixel(value):
    target = np.array([[0, 255], [value, 1]])
    with pytest.raises(InvalidValue, match=rf"target holds {value} on 1 valid pixels \(first at \(1, 0\).*255"):
        confusion_matrix(np.zeros_like(target), target, K)


@pytest.mark.parametrize("value", [-1, 300])
def test_confusion_matrix_wide_prediction_out_of_range_is_not_folded_into_another_cell(value):
    with pytest.raises(InvalidValue, match=f"prediction holds {value}"):
        confusion_matrix(np.array([value, 0]), np.array([0, 0]), K)


def test_confusion_matrix_shapes_differ_refused():
    with pytest.raises(InvalidValue, match=r"shape \(2, 3\), target \(3, 2\)"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), K)


def test_confusion_matrix_scores_instead_of_classes_refused():
    with pytest.raises(InvalidValue, match=r"integer class ids, got torch.float32"):
        confusion_matrix(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.uint8), K)


def test_confusion_matrix_mixed_kinds_refused():
    with pytest.raises(InvalidValue, match="prediction is a Tensor, target a ndarray"):
        confusion_matrix(torch.zeros(2, dtype=torch.uint8), np.zeros(2, np.uint8), K)


def test_confusion_matrix_array_with_a_mask_refused():
    target = np.ma.masked_equal(np.array([0, 1]), 1)
    with pytest.raises(InvalidValue, match=r"target is an array with a mask.*filled\(ignore_index\)"):
        confusion_matrix(np.array([0, 1]), target, 2)


def test_confusion_matrix_list_refused():
    with pytest.raises(InvalidValue, match="prediction must be a torch tensor or a NumPy array, got list"):
        confusion_matrix([0, 1], np.zeros(2, np.uint8), K)


def test_confusion_matrix_no_classes_refused():
    with pytest.raises(InvalidValue, match="at least 1, got 0"):
        confusion_matrix(np.zeros(2, np.uint8), np.zeros(2, np.uint8), 0)


def test_confusion_matrix_devices_differ_refused():
    with pytest.raises(InvalidValue, match="prediction is on cpu, target on meta"):
        confusion_matrix(torch.zeros(2, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8, device="meta"), K)


@pytest.mark.parametrize("bad", [None, "prediction", "target"])
def test_confusion_matrix_accelerator_path_equals_host_path(bad):
    """The path for accelerators runs on any device: its formulas are checked here on the host."""
    from perpixel.metrics.confusion import _count_on_device

    target = torch.tensor([[0, 1, 255], [3, 2, 255]])
    prediction = torch.tensor([[0, 2, 99], [3, 2, -5]])
    if bad is None:
        assert torch.equal(_count_on_device(prediction, target, K, 255), confusion_matrix(prediction, target, K))
        return
    (prediction if bad == "prediction" else target)[0, 1] = 9
    with pytest.raises(InvalidValue, match=f"{bad} holds 9 on 1 valid pixels"):
        _count_on_device(prediction, target, K, 255)


@pytest.mark.gpu
def test_confusion_matrix_on_gpu_equals_host():
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randint(0, K, (2, 64, 64), generator=generator, dtype=torch.uint8)
    target = torch.randint(0, K, (2, 64, 64), generator=generator, dtype=torch.uint8)
    counts = confusion_matrix(prediction.cuda(), target.cuda(), K)
    assert counts.is_cuda
    assert torch.equal(counts.cpu(), confusion_matrix(prediction, target, K))
