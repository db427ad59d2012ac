"""Batches on their way to the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine_fakes import make_batch

from perpixel.data.batches import Batch
from perpixel.engine.prefetch import ahead, prefetched
from perpixel.errors import DataError


class Source:
    """Yields batches, and remembers how many were made and whether it was closed."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.made = 0
        self.closed = False

    def __iter__(self) -> Iterator[Batch]:
        try:
            for index in range(self.count):
                if index == self.fails_at:
                    raise DataError("image-3 cannot be read")
                self.made += 1
                yield make_batch(index)
        finally:
            self.closed = True


def one_ahead(source: Any, device: str) -> Iterator[Batch]:
    return ahead(source, waiting=1)


WAYS = {"moved": prefetched, "ahead": one_ahead}


def threads() -> int:
    return sum(thread.name == "perpixel-prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("way", WAYS)
def test_batches_come_in_order_and_whole(way: str) -> None:
    source = Source(5)
    for index, batch in enumerate(WAYS[way](source, "cpu")):
        expected = make_batch(index)
        assert batch.names == expected.names
        assert all(torch.equal(one, other) for one, other in zip(batch[:3], expected[:3], strict=True))
    assert index == 4
    assert source.closed
    assert threads() == 0


@pytest.mark.parametrize("way", WAYS)
def test_error_of_the_source_comes_at_its_place(way: str) -> None:
    source = Source(5, fails_at=3)
    batches = WAYS[way](source, "cpu")
    assert [next(batches).names for _ in range(3)] == [make_batch(index).names for index in range(3)]
    with pytest.raises(DataError, match="image-3 cannot be read"):
        next(batches)
    assert source.closed
    assert threads() == 0


@pytest.mark.parametrize("way", WAYS)
def test_leaving_early_closes_the_source(way: str) -> None:
    source = Source(100)
    batches = WAYS[way](source, "cpu")
    next(batches)
    batches.close()
    assert source.closed
    assert source.made < 10
    assert threads() == 0


def test_ahead_is_no_further_ahead_than_asked() -> None:
    source = Source(100)
    batches = ahead(source, waiting=2)
    next(batches)
    deadline = time.monotonic() + 5
    while source.made < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert source.made == 4  # one handed out, two waiting, one in the hand of the thread
    batches.close()


def test_ahead_of_nothing_ends_at_once() -> None:
    assert list(ahead([], waiting=1)) == []


def test_ahead_error_before_the_first_item_is_raised() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(ahead(7, waiting=1))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_prefetched_to_cuda_holds_the_same_batches() -> None:
    for index, batch in enumerate(prefetched(Source(20), "cuda")):
        torch.cuda._sleep(1_000_000)  # so that copies run beside work
        expected = make_batch(index)
        assert batch.images.is_cuda
        assert all(torch.equal(one.cpu(), other) for one, other in zip(batch[:3], expected[:3], strict=True))
    assert threads() == 0
