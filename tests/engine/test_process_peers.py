"""Who is still there: a process that was killed is noticed by those who wait for it at the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore
from torch.distributed import DistError

from perpixel.engine import peers
from perpixel.engine.distributed import ProcessLost, _lost, _Meeting, _Report
from perpixel.engine.peers import Peers, is_lost_connection
from perpixel.errors import RunError

seen = pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="looks through /proc")


def place(store: HashStore, rank: int, process_id: int) -> None:
    """Says that a rank is the process of that id, on this machine."""
    machine = peers._machine()
    assert machine is not None
    store.set(f"place/{rank}", f"{machine} {process_id}")


@seen
def test_peers_killed_process_has_ended_before_and_after_it_is_waited_for() -> None:
    store = HashStore()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    place(store, 1, process.pid)
    found = Peers(store, 0, 2)
    assert not found.has_ended(0)
    assert not found.has_ended(1)
    process.kill()
    ends = time.monotonic() + 20
    while not found.has_ended(1):  # still in the table of processes
        assert time.monotonic() < ends
    assert process.returncode is None
    process.wait()
    assert found.has_ended(1)


@seen
def test_peers_elsewhere_or_not_yet_known_have_not_ended() -> None:
    store = HashStore()
    found = Peers(store, 0, 2)
    assert not found.has_ended(1)
    store.set("place/1", "another-machine 4026 1")
    store.set("place/2", f"another-machine 4026 {2**22 + 7}")
    assert not found.has_ended(1)
    assert not found.has_ended(2)


def test_peers_without_proc_see_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_BOOT", tmp_path / "absent")
    store = HashStore()
    store.set("place/1", f"? {2**22 + 7}")
    assert not Peers(store, 0, 2).has_ended(1)
    assert not store.check(["place/0"])


@seen
def test_meeting_with_a_process_that_was_killed_ends_at_once() -> None:
    store = HashStore()
    place(store, 1, 2**22 + 7)  # larger than any process id
    meeting = _Meeting(store, 0, 2, 60)
    with pytest.raises(ProcessLost, match=r"rank 1 of 2 was killed; resume from the last checkpoint"):
        meeting.report(_Report(None, ""))


@seen
def test_meeting_hears_what_a_process_said_before_it_ended() -> None:
    store = HashStore()
    place(store, 1, 2**22 + 7)
    other = _Meeting(store, 1, 2, 60)
    place(store, 1, 2**22 + 7)
    store.set("0/0", "")
    with pytest.raises(EOFError):  # the main one's report is none; its own is there by then
        other.report(_Report(None, "", "last words"))
    found = _Meeting(store, 0, 2, 60).report(_Report(None, ""))
    assert [report.value for report in found] == [None, "last words"]


@seen
def test_lost_process_that_was_killed_is_waited_for_no_longer() -> None:
    store = HashStore()
    place(store, 1, 2**22 + 7)
    found = _lost(_Meeting(store, 0, 2, 60), RuntimeError("Connection closed\nby peer"))
    assert type(found) is ProcessLost
    assert str(found).startswith("rank 0 of 2 has lost the others (Connection closed by peer); one of them was")


def test_lost_process_that_lives_is_heard_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    here, other = _Meeting(store, 0, 2, 60), _Meeting(store, 1, 2, 60)
    looks: list[int] = []

    def has_ended(rank: int) -> bool:
        looks.append(rank)
        if len(looks) == 3:
            other.fail(RunError("out of memory"))
        return False

    monkeypatch.setattr(here.peers, "has_ended", has_ended)
    assert str(_lost(here, RuntimeError("Connection closed"))) == "rank 1 of 2 failed: out of memory"
    assert looks == [1, 1, 1]


def test_leave_main_process_stays_while_another_has_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    main, other = _Meeting(store, 0, 2, 60), _Meeting(store, 1, 2, 60)
    looks: list[int] = []

    def has_ended(rank: int) -> bool:
        looks.append(rank)
        if len(looks) == 3:
            other.leave()
        return False

    monkeypatch.setattr(main.peers, "has_ended", has_ended)
    main.leave()
    assert looks == [1, 1, 1]


@seen
def test_leave_main_process_does_not_wait_for_the_dead() -> None:
    store = HashStore()
    place(store, 1, 2**22 + 7)
    main = _Meeting(store, 0, 2, 60)
    assert main.peers.all_have_ended()
    main.leave()


class _Gone:
    """A store whose process is gone."""

    def check(self, keys: list[str]) -> bool:
        raise RuntimeError(keys[0])

    def set(self, key: str, value: str) -> None:
        raise RuntimeError(key, value)


@seen
def test_peers_whose_store_is_gone_have_ended() -> None:
    assert Peers(_Gone(), 1, 2).has_ended(0)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo] Connection closed by peer"), True),
        (RuntimeError("NCCL watchdog"), True),
        (RuntimeError("Timed out after 60 s"), True),
        (DistError("?"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_is_lost_connection_knows_the_words(error: RuntimeError, lost: bool) -> None:
    assert is_lost_connection(error) is lost


def test_peers_this_process_is_the_one_that_it_says() -> None:
    assert not peers._has_ended(os.getpid())
