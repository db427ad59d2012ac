"""Peaks of real steps, and the heap that gives memory back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_fakes import TinyNetwork, criterion

from perpixel.engine import memory_probe
from perpixel.engine.memory_probe import (
    HEAP_FACTOR,
    MemoryWatch,
    give_memory_back,
    keep_heap_small,
    save_memory_if_short,
    step_bytes,
)
from perpixel.types import Preprocessing

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap is Linux's")
_HEAP = """
import ctypes, torch
from perpixel.engine.memory_probe import keep_heap_small
def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
def left():
    blocks = [torch.ones(250_000) for _ in range(200)]
    peak, last = held(), blocks.pop()  # it lies at the top of the heap
    del blocks
    return held() - peak
assert keep_heap_small()
small = left()
ctypes.CDLL(None).mallopt(-3, 32 << 20)  # where glibc's own threshold ends
ctypes.CDLL(None).mallopt(-1, 64 << 20)
print(left(), small)
"""


def probed(batch_size: int, **changes: object) -> int:
    network = TinyNetwork().train()
    return step_bytes(
        network,
        criterion,
        torch.optim.SGD(network.parameters(), lr=0.1),
        preprocessing=Preprocessing(),
        batch_size=batch_size,
        crop_size=(64, 64),
        channels_last=False,
        **changes,  # type: ignore[arg-type]
    )


@LINUX
def test_step_bytes_grows_with_the_batch() -> None:
    probed(1)
    assert probed(256) > probed(16) + 100 * 64 * 64 * 8 * 4  # at least the maps that autograd keeps


def test_step_bytes_runs_two_batches_of_an_accumulated_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(memory_probe, "train_step", lambda _, __, batches, ___, **____: seen.append(len(batches)))
    probed(1, accumulate=8)
    assert seen == [2, 2, 2]


@LINUX
def test_keep_heap_small_gives_back_what_the_usual_heap_keeps() -> None:
    done = subprocess.run([sys.executable, "-c", _HEAP], capture_output=True, text=True, check=True)
    usual, small = map(float, done.stdout.split())
    assert small < -150  # MiB of 190
    assert usual > small + 50


def test_keep_heap_small_without_glibc_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_heap_small()


@pytest.mark.parametrize(("free", "done"), [(600, False), (100, True)])
def test_save_memory_if_short_compares_the_first_step_with_what_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, done: bool
) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t 1000 kB\nVmRSS:\t 900 kB\n")
    monkeypatch.setattr(memory_probe, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory_probe, "free_memory", lambda _: free << 10)
    monkeypatch.setattr(memory_probe, "keep_heap_small", lambda: True)
    assert (900 + free < HEAP_FACTOR * 1000) is done
    reason = save_memory_if_short("cpu")
    assert (reason is not None) is done
    assert not done or "a sixth more time" in str(reason)
    assert save_memory_if_short("cuda") is None


def test_save_memory_if_short_unknown_system_leaves_the_heap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_probe, "_STATUS", tmp_path / "none")
    assert save_memory_if_short("cpu") is None
    (tmp_path / "none").write_text("VmHWM:\t 1000 kB\n")
    assert save_memory_if_short("cpu") is None


def test_memory_watch_looks_once_and_says_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def short(device: object) -> str:
        asked.append(device)
        return "there is little"

    monkeypatch.setattr(memory_probe, "save_memory_if_short", short)
    told: list[tuple[str, str, str]] = []
    watch = MemoryWatch("cpu", lambda *what: told.append(what))
    watch.after_step()
    watch.after_step()
    assert (asked, told) == (["cpu"], [("heap", "small", "there is little")])


def test_give_memory_back_can_be_called_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    give_memory_back("cpu")
    assert not emptied
    give_memory_back("cuda")
    assert emptied == [None]
