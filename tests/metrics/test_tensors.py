"""Tensor: what isinstance says of tensors and arrays, with and without torch. Labels as arrays, and what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.metrics.tensors import Tensor, host_labels


def test_tensor_is_torchs_own_and_nothing_else() -> None:
    assert isinstance(torch.zeros(2), Tensor)
    assert isinstance(torch.nn.Parameter(torch.zeros(2)), Tensor | np.ndarray)
    assert not isinstance(np.zeros(2), Tensor)


def test_tensor_without_torch_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.zeros(2)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert not isinstance(value, Tensor)


def test_host_labels_arrays_are_not_copied_and_tensors_become_arrays() -> None:
    labels = np.array([[True, False]])
    assert host_labels(labels, "target") is labels
    assert host_labels(torch.tensor([[3, -1]], dtype=torch.int16), "target").tolist() == [[3, -1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64])
def test_host_labels_scores_in_a_tensor_refused(dtype) -> None:
    with pytest.raises(InvalidValue, match=f"prediction must hold integer class ids, got {dtype}.*argmax"):
        host_labels(torch.zeros((1, 2), dtype=dtype), "prediction")


def test_host_labels_scores_in_an_array_and_lists_refused() -> None:
    with pytest.raises(InvalidValue, match="target must hold integer class ids, got float16"):
        host_labels(np.zeros((1, 2), np.float16), "target")
    with pytest.raises(InvalidValue, match="target must be a torch tensor or a NumPy array, got list"):
        host_labels([[0]], "target")
    with pytest.raises(InvalidValue, match="prediction is an array with a mask of its own; fill that in"):
        host_labels(np.ma.masked_equal(np.array([[0, 1]]), 1), "prediction")
