"""What `perpixel train --processes` starts and what it makes of how the processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perpixel.cli import main, processes
from perpixel.cli.processes import LAUNCH, exit_code, run_processes, started_at, train_together
from perpixel.engine.distributed import ProcessLost
from perpixel.engine.interrupts import Interrupted
from perpixel.errors import DataError, RunError


class FakeAgent:
    """Stands for torchrun: ends at once and leaves the exit codes of its processes."""

    ends_with = 0
    codes: tuple[int, ...] = (0, 0)
    command: list[str]
    environment: dict[str, str]

    def __init__(
        self, command: list[str], *, env: dict[str, str], start_new_session: bool, preexec_fn: Callable[[], None]
    ) -> None:
        type(self).command, type(self).environment = command, env
        assert start_new_session
        assert preexec_fn is processes._end_with_parent
        for rank, code in enumerate(self.codes):
            (Path(env[LAUNCH]) / f"exit-{rank}").write_text(str(code))

    def wait(self) -> int:
        return self.ends_with

    def terminate(self) -> None:
        pass


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> type[FakeAgent]:
    class Agent(FakeAgent):
        pass

    monkeypatch.setattr(subprocess, "Popen", Agent)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return Agent


def test_train_processes_starts_torchrun_with_the_same_command(agent: type[FakeAgent]) -> None:
    tokens = ["train", "a.yaml", "optimizer.lr=0.1", "--out", "runs/x", "--overwrite", "--no-check"]
    assert main([*tokens, "--processes", "2"]) == 0
    command = agent.command
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert command[command.index("--max-restarts") + 1] == "3"
    assert command[command.index("perpixel") + 1 :] == tokens
    assert agent.environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert int(agent.environment["OMP_NUM_THREADS"]) >= 1


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((2, 2), 2), ((143, 143), 143)])
def test_run_processes_returns_the_code_that_they_left(
    agent: type[FakeAgent], codes: tuple[int, ...], code: int
) -> None:
    agent.codes = codes
    assert run_processes(["train"], 2) == code


def test_run_processes_that_die_too_often_say_how_to_go_on(agent: type[FakeAgent]) -> None:
    agent.ends_with, agent.codes = 1, ()
    with pytest.raises(RunError, match=r"one of the 2 processes died, and again after 3 restarts; .*--resume RUN"):
        run_processes(["train"], 2)


def test_train_processes_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "a.yaml", "--processes", "0"]) == 2
    assert "--processes must be at least 1, got 0" in capsys.readouterr().err


def test_train_processes_with_verify_resume_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "a.yaml", "--processes", "2", "--verify-resume"]) == 2
    assert "--verify-resume tries a run in one process" in capsys.readouterr().err


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of rank 0 of one that torchrun started."""
    for name, value in {LAUNCH: str(tmp_path), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_end_with_parent", (tmp_path / "ends-with-parent").touch)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")
def test_run_processes_launcher_that_is_killed_ends_what_it_started() -> None:
    program = (
        "import subprocess, sys, time\n"
        "from perpixel.cli.processes import _end_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True, preexec_fn=_end_with_parent)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        launcher.kill()
    state = Path(f"/proc/{child}/stat")
    deadline = time.monotonic() + 10
    while _lives(state) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(state)


def _lives(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_exit_code_orderly_end_is_left_for_the_launcher(launched: Path, code: int) -> None:
    assert exit_code(code) == 0
    assert (launched / "exit-0").read_text() == str(code)


def test_exit_code_of_a_bug_is_torchruns_to_see(launched: Path) -> None:
    assert exit_code(1) == 1
    assert list(launched.iterdir()) == []


def test_exit_code_without_launcher_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAUNCH, raising=False)
    assert exit_code(2) == 2


def test_started_at_is_the_launchers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPIXEL_STARTED", "20261122-012345")
    assert started_at() == "20261122-012345"


class FakeWorld:
    """What joined_world yields; ``speaks`` is what decides."""

    said = True

    def __enter__(self) -> FakeWorld:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def speaks(self) -> bool:
        return self.said


@pytest.mark.parametrize("speaks", [True, False])
def test_train_together_an_error_is_said_by_one_process(
    launched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], speaks: bool
) -> None:
    world = FakeWorld()
    world.said = speaks
    monkeypatch.setattr("perpixel.engine.distributed.joined_world", lambda: world)

    def fails(_: Any) -> int:
        raise DataError("image-3 is broken")

    if speaks:
        with pytest.raises(DataError, match="image-3 is broken"):
            train_together(fails)
    else:
        assert train_together(fails) == 2
    assert (launched / "pid-0").read_text() == str(os.getpid())
    assert (launched / "ends-with-parent").exists()

    def loses(_: Any) -> int:
        raise ProcessLost("rank 0 of 2 has lost the others")

    assert train_together(loses) == 1
    assert ("has lost the others" in capsys.readouterr().err) == speaks


def test_train_together_after_a_stop_does_not_begin(launched: Path) -> None:
    (launched / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        train_together(lambda _: 0)


@pytest.mark.parametrize(("signal_name", "code"), [(None, 130), ("SIGTERM", 143)])
def test_train_together_a_stop_is_said_by_the_main_process_alone(
    launched: Path, monkeypatch: pytest.MonkeyPatch, signal_name: str | None, code: int
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    stop = KeyboardInterrupt() if signal_name is None else Interrupted(signal_name)

    def stopped(_: Any) -> int:
        raise stop

    monkeypatch.setattr("perpixel.engine.distributed.joined_world", FakeWorld)
    assert train_together(stopped) == code
    assert (launched / "pid-1").exists()


def test_run_processes_passes_a_signal_on(agent: type[FakeAgent], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def wait(self: FakeAgent) -> int:
        if not sent:
            (Path(self.environment[LAUNCH]) / "pid-0").write_text("12345")
            monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
            signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(agent, "wait", wait)
    agent.codes = (143, 143)
    assert run_processes(["train"], 2) == 143
    assert sent == [(12345, signal.SIGTERM)]


def test_processes_needs_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "a.yaml", "--processes", "many"]) == 2
    assert "many" in capsys.readouterr().err
