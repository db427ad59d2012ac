"""Python's numbers as tensors."""

from __future__ import annotations

import pytest
import torch

from perpixel.ops.host_values import from_host


def test_from_host_is_what_torch_tensor_gives() -> None:
    assert torch.equal(from_host((0.1, 0.2), device=None), torch.tensor([0.1, 0.2]))
    pairs = from_host(((1, -2), (3, 4)), device=torch.device("cpu"))
    assert pairs.dtype == torch.int64
    assert pairs.tolist() == [[1, -2], [3, 4]]
    assert from_host([1.0], dtype=torch.float64, device=None).dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_from_host_to_cuda_does_not_wait() -> None:
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = from_host((1.0, 2.0), device=torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.tolist() == [1.0, 2.0]
