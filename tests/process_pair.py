"""Two processes that stay, and run one function after the other as the two ranks of a world."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from perpixel.engine.distributed import World, joined_world

_LONGEST = 120
"""Seconds until a test that hangs fails."""


class ProcessPair:
    """Starts both processes; each call meets anew, so that what one test leaves behind reaches no other."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls ``work(world, *arguments)`` in both and returns what they return or raise, by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for pipe in self._pipes:
            pipe.send((port, work, arguments))
        found = []
        for pipe in self._pipes:
            assert pipe.poll(_LONGEST), "a process hangs"
            found.append(pipe.recv())
        return found

    def results(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Returns what both return; neither may raise."""
        found = self.run(work, *arguments)
        for value in found:
            if isinstance(value, BaseException):
                raise value
        return found

    def close(self) -> None:
        """Ends both."""
        for process in self._processes:
            process.terminate()
            process.join()


def _serve(pipe: Connection, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"PERPIXEL_TIMEOUT_SECONDS": "60"}
    while True:
        port, work, arguments = pipe.recv()
        os.environ["MASTER_PORT"] = str(port)
        pipe.send(_outcome(work, arguments))


def _outcome(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        with joined_world() as world:
            return work(world, *arguments)
    except Exception as error:
        return error.with_traceback(None)


def rank_of(world: World) -> int:
    return world.rank
