"""``perpixel train --processes N``: starts torchrun with what it needs to restart, and speaks for all processes.

The processes find a folder in ``PERPIXEL_LAUNCH``. They leave their process ids there, so that signals reach them and
not torchrun, which would end them its own way; and their exit codes, so that a mistake of the user's ends the run at
once where torchrun would start it again and print a traceback.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from perpixel.cli.failures import CALLER_MISTAKE, INTERRUPTED, UNEXPECTED, interruption_code
from perpixel.errors import ConfigError, PerpixelError, PerpixelWarning, RunError

if TYPE_CHECKING:
    from perpixel.engine.distributed import World

__all__ = ["LAUNCH", "exit_code", "run_processes", "started_at", "train_together", "under_torchrun"]

LAUNCH = "PERPIXEL_LAUNCH"
_STARTED = "PERPIXEL_STARTED"
_MAX_RESTARTS = 3
_SECONDS_TO_SAVE = 120
_STOP = "stop"
_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
_ORDERLY = (0, CALLER_MISTAKE, INTERRUPTED, 128 + signal.SIGTERM, 128 + getattr(signal, "SIGHUP", 1))
"""Exit codes after which starting again would lead nowhere."""


def run_processes(arguments: Sequence[str], processes: int) -> int:
    """Runs ``perpixel ARGUMENTS`` in several processes of this machine and returns the exit code.

    A process that dies is started again with all others, up to three times; they go on from the newest training state.
    Ctrl-C, SIGTERM and SIGHUP go to every process. When this one is killed, the others save and end.

    Raises:
        ConfigError: ``processes`` is not positive.
        RunError: the processes died too often.
    """
    if processes < 1:
        raise ConfigError(f"--processes must be at least 1, got {processes}")
    with tempfile.TemporaryDirectory(prefix="perpixel-") as name:
        folder = Path(name)
        environment = os.environ | {
            LAUNCH: name,
            _STARTED: started_at(),
            # Without it workers that are started again hang at every second try: they share a store with dead ones.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a store that is gone would print its stack
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["--max-restarts", str(_MAX_RESTARTS), "--shutdown-timeout", str(_SECONDS_TO_SAVE)]
        command += ["-m", "perpixel", *arguments]
        # A session of its own: Ctrl-C in the terminal comes here, and from here to the processes.
        agent = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has no threads
        )
        try:
            with _signals_passed_on(folder, agent):
                failed = agent.wait() != 0
        finally:
            agent.terminate()
            agent.wait()
        codes = [int(file.read_text()) for file in sorted(folder.glob("exit-*"))]
        if failed and not any(codes):
            if (folder / _STOP).exists():
                return INTERRUPTED
            raise RunError(
                f"one of the {processes} processes died, and again after {_MAX_RESTARTS} restarts; what torchrun says "
                "of it stands above. perpixel train --resume RUN goes on from the newest training state"
            )
        return max(codes, default=0)


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def started_at() -> str:
    """Returns the time that names a run folder; a run that is started again has the same."""
    return os.environ.get(_STARTED) or time.strftime("%Y%m%d-%H%M%S")


def train_together(run: Callable[[World], int]) -> int:
    """Runs one of torchrun's processes: the main one prints, and an error is said by whoever meets it first.

    Args:
        run: Takes the world and returns the exit code.

    Raises:
        PerpixelError: the run failed, and no other process has said so.
        KeyboardInterrupt: the run was stopped while it did not train; only the main process says so.
    """
    try:
        _join_launch()
        return _joined(run)
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":  # all are stopped alike; the store may be gone by now
            raise
        return interruption_code(getattr(error, "signal", None))


def _joined(run: Callable[[World], int]) -> int:
    from perpixel.engine.distributed import ProcessLost, World, joined_world

    world = World()
    try:
        with joined_world() as world:
            return run(world)
    except ProcessLost as error:
        if not world.speaks():
            return UNEXPECTED
        if _launch_folder() is None:
            raise
        sys.stderr.write(f"warning: {error}\n")
        return UNEXPECTED
    except PerpixelError:
        if world.speaks():
            raise
        return CALLER_MISTAKE


def _join_launch() -> None:
    """Leaves this process's id for signals, and silences all processes but the main one."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        warnings.filterwarnings("ignore", category=PerpixelWarning)
    folder = _launch_folder()
    if folder is None:
        return
    _end_with_parent()
    (folder / f"exit-{os.environ['RANK']}").unlink(missing_ok=True)
    (folder / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()), encoding="utf-8")
    if (folder / _STOP).exists():
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Lets this process have SIGTERM when the one that started it is gone, so that nothing trains on unwatched."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def exit_code(code: int) -> int:
    """Returns the code that this process ends with: under ``--processes`` an orderly end is a success for torchrun."""
    folder = _launch_folder()
    if folder is None or code not in _ORDERLY:
        return code
    with suppress(OSError):
        (folder / f"exit-{os.environ['RANK']}").write_text(str(code), encoding="utf-8")
        return 0
    return code


def _launch_folder() -> Path | None:
    name = os.environ.get(LAUNCH)
    return Path(name) if name and under_torchrun() and Path(name).is_dir() else None


@contextmanager
def _signals_passed_on(folder: Path, agent: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within this block a stop signal goes to every process; the third one ends torchrun."""
    count = 0

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        nonlocal count
        count += 1
        (folder / _STOP).touch()
        reached = [_signalled(file, number) for file in folder.glob("pid-*")]
        if count > 2 or not any(reached):
            agent.terminate()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [
        number for number in map(signal.Signals.__getitem__, names) if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signalled(file: Path, number: int) -> bool:
    try:
        os.kill(int(file.read_text(encoding="utf-8")), number)
    except (OSError, ValueError):
        return False
    return True
