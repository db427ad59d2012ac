"""map_in_processes: in order, few in flight, and ended cleanly however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_worker_tasks import doubled, dying, refusing

from perpixel.errors import DataError, RunError
from perpixel.evaluation.workers import available_cores, map_in_processes


def test_map_in_processes_results_come_in_order_with_few_in_flight() -> None:
    taken = []

    def tasks():
        for task in range(20):
            taken.append(task)
            yield task

    results = map_in_processes(doubled, tasks(), workers=2)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == [2 * task for task in range(1, 20)]


def test_map_in_processes_errors_of_a_task_are_raised_here() -> None:
    with pytest.raises(DataError, match="task 7 is refused"):
        list(map_in_processes(refusing, [7], workers=1))


def test_map_in_processes_dead_process_is_named_with_its_task() -> None:
    with pytest.raises(RunError, match="a worker process ended with code 3 at 5; is there memory enough"):
        list(map_in_processes(dying, [5], workers=1))


def test_map_in_processes_without_an_interpreter_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match=r"a worker process cannot be started: .*ask for one worker"):
        list(map_in_processes(doubled, [1], workers=1))


def test_available_cores_is_positive() -> None:
    assert available_cores() >= 1


def test_worker_that_counts_masks_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, perpixel.evaluation.mask_pairs; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_map_in_processes_ctrl_c_ends_the_processes(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"  # no main guard: the module is not imported again
    script.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell starts us without it
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from evaluation_worker_tasks import doubled\n"
        "from perpixel.evaluation.workers import map_in_processes\n"
        "for result in map_in_processes(doubled, range(10**9), workers=2):\n"
        "    print(result, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    pids = children.read_text().split() if children.exists() else []
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    time.sleep(0.1)
    assert not any(_alive(int(pid)) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
