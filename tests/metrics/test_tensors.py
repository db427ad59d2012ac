"""Tensor: what isinstance says of tensors and arrays, with and without torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perpixel.metrics.tensors import Tensor


def test_tensor_is_torchs_own_and_nothing_else() -> None:
    assert isinstance(torch.zeros(2), Tensor)
    assert isinstance(torch.nn.Parameter(torch.zeros(2)), Tensor | np.ndarray)
    assert not isinstance(np.zeros(2), Tensor)


def test_tensor_without_torch_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.zeros(2)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert not isinstance(value, Tensor)
