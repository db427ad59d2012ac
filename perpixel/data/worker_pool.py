"""Work spread over processes that start at once: each imports only the module of its own function.

The interpreter is started anew (no fork, so threads and devices of this process do not matter) and the caller's main
module is not imported again, so scripts and notebooks need no guard. Results come in the order of the tasks, with only
a few in flight, so that memory does not grow with their number.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from perpixel.errors import RunError

__all__ = ["available_cores", "map_in_processes", "serve"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_IN_FLIGHT = 4
_START = "import sys; sys.path[:] = sys.argv[1:]; from perpixel.data.worker_pool import serve; serve()"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def available_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int) -> Iterator[Result]:
    """Calls a function on each task in ``workers`` processes and yields the results in the order of the tasks.

    Leaving the iteration early, by an error or by Ctrl-C, ends the processes.

    Args:
        function: Can be pickled and stands in a module that can be imported; it is sent to every process once.
        tasks: Can be pickled.
        workers: Processes, at least 1.

    Raises:
        RunError: a process could not start or ended by itself, as when memory runs out; names the task.
        Exception: what ``function`` raised.
    """
    with ThreadPoolExecutor(workers) as threads, _processes(function, workers) as idle:

        def ask(task: Task) -> Any:
            process = idle.get()
            try:
                return process.ask(task)
            finally:
                idle.put(process)

        waiting: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                waiting.append(threads.submit(ask, task))
                if len(waiting) >= _IN_FLIGHT * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def serve() -> None:
    """Answers the tasks on standard input until it closes; what is printed meanwhile goes to standard error."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function = pickle.load(requests)
    while True:
        try:
            task = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = (True, function(task))
        except Exception as error:
            answer = (False, error)
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


class _Process:
    """One interpreter that answers one task at a time."""

    def __init__(self, function: bytes) -> None:
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | _ONE_THREAD,
                start_new_session=True,  # Ctrl-C is for the process that waits; it ends this one
            )
        except OSError as error:
            raise RunError(f"a worker process cannot be started: {error}; ask for one worker") from error
        self._function: bytes | None = function

    def ask(self, task: Any) -> Any:
        """Returns the answer to one task, or raises what it raised."""
        if self._function is not None:  # not before, so that all processes start at the same time
            self._send(self._function)
            self._function = None
        self._send(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        assert self.process.stdout is not None
        try:
            fine, answer = pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            code = self.process.wait()
            raise RunError(f"a worker process ended with code {code} at {task}; is there memory enough?") from error
        if not fine:
            raise answer
        return answer

    def end(self) -> None:
        """Ends the process, whatever it is doing: it only reads."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was not read yet
                    stream.close()

    def _send(self, message: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; reading the answer says so
            self.process.stdin.write(message)
            self.process.stdin.flush()


@contextmanager
def _processes(function: Callable[..., Any], workers: int) -> Iterator[SimpleQueue[_Process]]:
    message = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    idle: SimpleQueue[_Process] = SimpleQueue()
    started: list[_Process] = []
    try:
        for _ in range(workers):
            started.append(_Process(message))
            idle.put(started[-1])
        yield idle
    finally:
        for process in started:
            process.end()
