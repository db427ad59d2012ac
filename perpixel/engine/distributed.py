"""Several processes that train one network: who this process is, and how the processes agree.

Two ways of speaking to each other. Tensors go through collectives of torch.distributed, whose timeout ends a wait for
a process that is gone. Objects and errors go through the store that the processes met at: whoever waits there looks
again and again whether another process has failed, so that a mistake reaches everyone at once however long the wait.
"""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore

from perpixel import errors
from perpixel.engine.peers import Peers, is_lost_connection
from perpixel.errors import ConfigError, PerpixelError, RunError

__all__ = ["TIMEOUT_VARIABLE", "ProcessLost", "World", "is_restarted", "joined_world"]

T = TypeVar("T")

TIMEOUT_VARIABLE = "PERPIXEL_TIMEOUT_SECONDS"
"""Environment variable: seconds after which a collective gives up, 600 when not set."""
_TIMEOUT = 600.0
_PATIENCE = 144
"""Timeouts that a process waits at the store for what only one process does, such as the final scores: a day."""
_LONGEST_PAUSE = 0.05
_GOODBYE = 120.0  # a step of somebody who has not heard yet
_FAILURE = "failure"


class ProcessLost(RunError):
    """Another process was ended from outside, or hangs; torchrun starts all of them again where it may."""


class _Report(NamedTuple):
    """How one process fares at a meeting."""

    kind: str | None
    """Class of its error; None when all is well."""
    message: str
    value: Any = None


class _Meeting:
    """The store, and the number of the next meeting there."""

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.patience = timeout * _PATIENCE
        self.turns = itertools.count()
        self.peers = Peers(store, rank, size)

    def report(self, report: _Report) -> list[_Report]:
        """Leaves this process's report and returns those of all, in the order of the ranks."""
        turn = next(self.turns)
        self.store.set(f"{turn}/{self.rank}", pickle.dumps(report))
        found = [self._read(f"{turn}/{rank}", rank) for rank in range(self.size)]
        if turn > 1:  # everyone who is here has read what was said two meetings ago
            with suppress(RuntimeError):
                self.store.delete_key(f"{turn - 2}/{self.rank}")
        return found

    def fail(self, error: BaseException) -> None:
        """Tells those who wait, now or later, that this process is leaving; the first one to fail is remembered."""
        with suppress(RuntimeError, OSError):
            if self.store.add("failures", 1) == 1:
                self.store.set(_FAILURE, pickle.dumps((self.rank, _described(error))))

    def failure(self) -> tuple[int, str] | None:
        """Rank and words of the process that failed first; None when there is none, or the store is gone."""
        with suppress(RuntimeError, OSError):
            if self.store.check([_FAILURE]):
                rank, message = pickle.loads(self.store.get(_FAILURE))
                return int(rank), str(message)
        return None

    def leave(self) -> None:
        """Says goodbye; the main process, whose store it is, waits until the others have read what they need."""
        with suppress(RuntimeError, OSError):
            left = self.store.add("left", 1)
            deadline = time.monotonic() + _GOODBYE
            while self.rank == 0 and left < self.size and time.monotonic() < deadline:
                time.sleep(_LONGEST_PAUSE / 10)
                left = self.size if self.peers.all_have_ended() else self.store.add("left", 0)

    def _read(self, key: str, rank: int) -> _Report:
        deadline, pause = time.monotonic() + self.patience, 0.0005
        try:
            while not self.store.check([key]):
                ended, failure = self.peers.has_ended(rank), self.failure()
                if (ended or failure) and self.store.check([key]):  # said before that
                    break
                if failure is not None:
                    raise RunError(f"rank {failure[0]} of {self.size} failed: {failure[1]}")
                if ended:
                    raise ProcessLost(f"rank {rank} of {self.size} was killed; resume from the last checkpoint")
                if time.monotonic() > deadline:
                    raise ProcessLost(
                        f"rank {self.rank} of {self.size} has waited {self.patience:g} s for rank {rank}; "
                        f"look why that one hangs, or wait longer with {TIMEOUT_VARIABLE}"
                    )
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            report: _Report = pickle.loads(self.store.get(key))
        except (RuntimeError, OSError) as error:
            raise ProcessLost(
                f"rank {self.rank} of {self.size} has lost the others: {error}; one of them was ended from outside. "
                "Resume from the last checkpoint"
            ) from error
        return report


@dataclass(frozen=True)
class World:
    """The processes of a run and this one's place among them; one process is a world of its own.

    What only one process does goes through these methods, which let an error of one process reach all: `main_only`,
    `from_main`, `main_first`, `checked`. All processes call them in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number of this process on its machine, which is the number of its GPU."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timeout: float = _TIMEOUT
    """Seconds after which a collective gives up."""
    _meeting: _Meeting | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def agree(self, error: Exception | None = None) -> None:
        """Every process says that all is well or what went wrong, and none goes on when one of them failed.

        Args:
            error: This process's; None when all is well.

        Raises:
            PerpixelError: an error of this kind came up, here or elsewhere; the message names the process, unless all
                of them met the same.
            Exception: ``error`` itself, when it is a bug of perpixel.
        """
        self._exchange(None, error)

    def gather(self, value: T) -> list[T]:
        """Returns the value of every process, in the order of the ranks."""
        found: list[T] = self._exchange(value, None)
        return found

    def checked(self, work: Callable[[], T]) -> T:
        """Every process works and returns its own result; an error of one is raised in all.

        Raises:
            PerpixelError: as `agree`.
        """
        return self._agreed(work)

    def from_main(self, work: Callable[[], T]) -> T:
        """The main process works and all return its result; its error is raised in all.

        Raises:
            PerpixelError: as `agree`.
        """
        found: T = self._exchange(*_attempt(work if self.is_main else _nothing), named=False)[0]
        return found

    def main_only(self, work: Callable[[], object]) -> None:
        """The main process works while the others wait; its error is raised in all.

        Raises:
            PerpixelError: as `agree`.
        """
        self._exchange(*_attempt(work if self.is_main else _nothing), named=False)

    def main_first(self, work: Callable[[], T]) -> T:
        """Every process works, the others after the main one has succeeded.

        Raises:
            PerpixelError: as `agree`.
        """
        value, error = _attempt(work if self.is_main else _nothing)
        self._exchange(None, error, named=False)
        if not self.is_main:
            return self._agreed(work)
        self.agree()
        return cast("T", value)

    def barrier(self) -> None:
        """Waits until all processes are here, for up to a day."""
        self.agree()

    def worst(self, code: int) -> int:
        """Returns the largest code of all processes; a few tenths of a millisecond, and no device is waited for."""
        if self.size == 1:
            return code
        largest = torch.tensor(code, dtype=torch.int32)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum over the processes, without gradient; on a GPU nothing waits for it."""
        if self.size == 1:
            return tensor.detach()
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Returns the mean over the processes, without gradient; on a GPU nothing waits for it."""
        return self.sum(tensor) / self.size

    def largest(self, tensor: Tensor) -> Tensor:
        """Returns the elementwise maximum over the processes; on a GPU nothing waits for it."""
        if self.size == 1:
            return tensor.detach()
        found = tensor.detach().clone()
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return found

    def placed(self, device: torch.device) -> World:
        """Returns the world of a run on ``device``: with several processes, each takes the GPU of its local rank.

        Raises:
            ConfigError: this machine has fewer GPUs than processes.
        """
        if device == torch.device("cuda") and self.size > 1:
            if self.local_rank >= torch.cuda.device_count():
                raise ConfigError(
                    f"rank {self.local_rank} of this machine finds {torch.cuda.device_count()} GPUs; start as many "
                    "processes as there are GPUs, or take device = cpu"
                )
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        return World(self.rank, self.size, self.local_rank, device, self.timeout, self._meeting)

    def share(self, batch_size: int) -> int:
        """Returns this process's part of a batch.

        Raises:
            ConfigError: the processes cannot share it evenly.
        """
        if batch_size % self.size == 0:
            return batch_size // self.size
        below = batch_size - batch_size % self.size
        near = " or ".join(str(size) for size in (below, below + self.size) if size)
        counts = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
        fewer, more = max(n for n in counts if n < self.size), min((n for n in counts if n > self.size), default=None)
        numbers = f"{fewer} or {more}" if more is not None else str(fewer)
        raise ConfigError(
            f"data.batch_size = {batch_size} is the batch of all processes together, and {self.size} processes cannot "
            f"share it evenly; nearest batch sizes: {near}; nearest numbers of processes: {numbers}"
        )

    def speaks(self) -> bool:
        """Whether this process prints the run's error: the first one to ask."""
        if self._meeting is None:
            return True
        try:
            return bool(self._meeting.store.add("speakers", 1) == 1)
        except (RuntimeError, OSError):  # the main process, whose store it was, has left
            return self.is_main

    def _agreed(self, work: Callable[[], T]) -> T:
        value, error = _attempt(work)
        self.agree(error)
        return value

    def _exchange(self, value: Any, error: Exception | None, *, named: bool = True) -> list[Any]:
        """Returns what all say; an error is ``named`` after its process unless all depend on the main one."""
        if self._meeting is None:
            if error is not None:
                raise error
            return [value]
        kind = None if error is None else type(error).__name__
        reports = self._meeting.report(_Report(kind, "" if error is None else _described(error), value))
        failed = {rank: report for rank, report in enumerate(reports) if report.kind is not None}
        if not failed:
            return [report.value for report in reports]
        shared = len(failed) == self.size and len({report.message for report in failed.values()}) == 1
        if error is not None and (shared or not named or not isinstance(error, PerpixelError)):
            raise error
        rank, first = next(iter(failed.items()))
        known = getattr(errors, first.kind or "", RunError)
        raise known(f"rank {rank} of {self.size}: {first.message}" if named else first.message) from error


@contextmanager
def joined_world(device: torch.device | None = None, *, timeout: float | None = None) -> Iterator[World]:
    """Joins the processes that torchrun started, and leaves them at the end; without torchrun there is one process.

    Collectives of CPU tensors go through gloo, of CUDA tensors through NCCL. Whoever has made a process group already
    keeps it. When this process fails, those who wait for it are told.

    Args:
        device: Where to train; None leaves it to `World.placed`.
        timeout: Seconds after which a collective gives up; None takes ``PERPIXEL_TIMEOUT_SECONDS``, or ten minutes.

    Raises:
        ConfigError: torchrun's environment is incomplete, or the timeout is no positive number.
        RunError: the processes do not find each other, or another one has failed.
    """
    timeout = _stated_timeout() if timeout is None else timeout
    size = int(os.environ.get("WORLD_SIZE", "1"))
    started = not dist.is_initialized() and size > 1
    if started:
        _start(timeout)
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        yield World(device=torch.device("cpu") if device is None else device)
        return
    rank, size = dist.get_rank(), dist.get_world_size()
    store = PrefixStore("perpixel", dist.distributed_c10d._get_default_store())
    meeting = _Meeting(store, rank, size, timeout)
    world = World(rank, size, int(os.environ.get("LOCAL_RANK", rank)), torch.device("cpu"), timeout, meeting)
    try:
        yield world if device is None else world.placed(device)
    except BaseException as error:
        lost = _lost(meeting, error) if isinstance(error, RuntimeError) and is_lost_connection(error) else None
        meeting.fail(lost or error)
        if lost is not None:
            raise lost from error
        raise
    finally:
        if started:
            with suppress(RuntimeError):
                dist.destroy_process_group()
            meeting.leave()


def is_restarted() -> bool:
    """Whether torchrun has started this process again after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _start(timeout: float) -> None:
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; start several processes "
            "with perpixel train --processes N, or with torchrun"
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the {os.environ['WORLD_SIZE']} processes do not find each other: {error}") from error


def _stated_timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT))
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"{TIMEOUT_VARIABLE} is a number of seconds over 0, got {text!r}")
    return timeout


def _lost(meeting: _Meeting, error: RuntimeError) -> RunError:
    """Says what is known of the process that was lost; one out of memory counts what would fit before it speaks."""
    deadline, ended = time.monotonic() + _GOODBYE, False
    while not ended and time.monotonic() < deadline:
        ended = meeting.peers.one_has_ended()
        if (failure := meeting.failure()) is not None:
            return RunError(f"rank {failure[0]} of {meeting.size} failed: {failure[1]}")
        time.sleep(_LONGEST_PAUSE)
    return ProcessLost(
        f"rank {meeting.rank} of {meeting.size} has lost the others ({' '.join(str(error).split())}); one of them was "
        f"ended from outside, or took longer than the timeout ({TIMEOUT_VARIABLE}). Resume from the last checkpoint"
    )


def _attempt(work: Callable[[], T]) -> tuple[T, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error  # type: ignore[return-value]


def _nothing() -> Any:
    return None


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, PerpixelError) else f"{type(error).__name__}: {error}"
