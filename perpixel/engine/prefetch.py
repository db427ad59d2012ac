"""The next batch on its way to the device while this one is worked on.

On CUDA a thread copies each batch into page-locked memory, and a stream of its own carries it to the device; the
training's stream waits there for that copy alone, and the host for nothing. Elsewhere batches are moved as they come.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from perpixel.data.batches import Batch

__all__ = ["ahead", "prefetched"]

_AHEAD = 1
"""Batches that wait on the device, beside the one that is being copied."""

T = TypeVar("T")


def prefetched(batches: Iterable[Batch], device: torch.device | str) -> Iterator[Batch]:
    """Yields the batches in order on ``device``; what the iterable raises is raised at its place.

    Closing the iterator, or leaving it before its end, stops the thread and closes the iterable.

    Args:
        batches: On the CPU.
        device: Where the network is.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _through_a_stream(batches, device)
    return _each(batches, lambda batch: batch.to(device))


def ahead(items: Iterable[T], *, waiting: int) -> Iterator[T]:
    """Yields the items in order, made by a thread that is at most ``waiting`` items ahead.

    An error of the iterable comes after the items before it. Closing the iterator ends the thread, after the item that
    it is making, and closes the iterable.

    Args:
        items: Iterated in the thread alone.
        waiting: >= 1.
    """
    worker = _Worker(items, waiting)
    try:
        while True:
            entry = worker.results.get()
            if isinstance(entry, _End):
                if entry.error is not None:
                    raise entry.error
                return
            yield entry.item
    finally:
        worker.end()


class _Made(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Worker(Generic[T]):
    """The thread, and the queue through which it hands over what it makes."""

    def __init__(self, items: Iterable[T], waiting: int) -> None:
        self.results: queue.Queue[_Made[T] | _End] = queue.Queue(waiting)
        self._items = items
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="perpixel-prefetch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may wait for room in the queue
            try:
                self.results.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def _work(self) -> None:
        end = _End(None)
        iterator = None
        try:
            iterator = iter(self._items)
            for item in iterator:
                self.results.put(_Made(item))
                if self._stop.is_set():
                    break
        except BaseException as error:  # handed over, whatever it is
            end = _End(error)
        finally:
            _close(iterator)
            self.results.put(end)


def _close(iterator: object) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


def _each(batches: Iterable[Batch], move: Callable[[Batch], T]) -> Iterator[T]:
    iterator = iter(batches)
    try:
        for batch in iterator:
            yield move(batch)
    finally:
        _close(iterator)


def _through_a_stream(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copies in a thread and on a stream of its own, so that the batch is there when it is asked for."""
    if device == torch.device("cuda"):  # a thread begins with the first GPU as its current one
        device = torch.device("cuda", torch.cuda.current_device())
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            moved = batch.pin_memory().to(device, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(stream)
        return moved, ready

    made = ahead(_each(batches, copied), waiting=_AHEAD)
    try:
        for batch, ready in made:
            current = torch.cuda.current_stream(device)
            current.wait_event(ready)
            for tensor in (batch.images, batch.target, batch.jitter):
                tensor.record_stream(current)  # its memory is not given away before the training is done with it
            yield batch
    finally:
        _close(made)
