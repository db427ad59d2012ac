"""Errors that say that memory ran out, and what people are told."""

from __future__ import annotations

import pytest
import torch

from perpixel.errors import RunError
from perpixel.inference import out_of_memory
from perpixel.inference.out_of_memory import explained_out_of_memory, is_out_of_memory, shortage_text

OF_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "512000000 bytes. Error code 12 (Cannot allocate memory)"
)
OF_CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24 GiB")
OTHERS = [
    RuntimeError("size mismatch"),
    RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive"),
    OSError("cannot allocate memory"),
    ValueError("x"),
]
NO_ROOM = RuntimeError("could not create a primitive")  # of oneDNN, for the code of a convolution


@pytest.mark.parametrize("error", [OF_CPU, OF_CUDA, MemoryError(), RuntimeError("std::bad_alloc"), NO_ROOM])
def test_is_out_of_memory_words_of_allocators_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS)
def test_is_out_of_memory_other_errors_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_is_out_of_memory_real_refusal_of_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert shortage_text(caught.value, "cpu").startswith(f"{(1 << 60) / 1e9:.2f} GB more were asked for")


def test_shortage_text_says_what_was_asked_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "free_memory", lambda _: 300_000_000)
    assert shortage_text(OF_CPU, "cpu") == "512 MB more were asked for, and 300 MB of cpu memory are free now"
    assert shortage_text(OF_CUDA, "cuda:0").startswith("2.15 GB more were asked for, and 300 MB of cuda memory")
    assert shortage_text(MemoryError("Unable to allocate 1.50 GiB for an array"), "cpu").startswith("1.61 GB more")
    assert shortage_text(MemoryError(), "cpu").startswith("more was asked for, and 300 MB")


def test_explained_out_of_memory_names_the_work_and_the_way_out() -> None:
    with (
        pytest.raises(RunError, match=r"out of memory in scoring: 512 MB more .* Take less\."),
        explained_out_of_memory("cpu", "scoring", "Take less."),
    ):
        raise OF_CPU
    with pytest.raises(RuntimeError, match="size mismatch"), explained_out_of_memory("cpu", "scoring", ""):
        raise RuntimeError("size mismatch")
