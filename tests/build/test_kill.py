"""A run that is killed again and again ends as if it had not been: `python tests/build/test_kill.py --kills 20`.

Each life is a process of its own that SIGKILL ends: while it starts, at random steps, while a checkpoint, an artifact
or the predictions are being written, and in the final scores.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import events, same_weights, small_config, weights, without_times, write_blocks

from perpixel.config import RunConfig, dump_config
from perpixel.engine.checkpoints import list_checkpoints, load_checkpoint

_CHILD = """
import sys
from pathlib import Path
import perpixel.build.run_job
from perpixel.build import train
from perpixel.config import load_config
perpixel.build.run_job.write_report = lambda run: run
config, run = sys.argv[1], Path(sys.argv[2])
begun = (run / "config.yaml").exists()
print("begun", int(begun), flush=True)
train(
    load_config(config), **({"resume": run} if begun else {"out": run, "overwrite": True}),
    on_progress=lambda p: print(f"{p.phase.replace(' ', '-')} {p.done}", flush=True),
)
"""
_KINDS = ("train", "evaluation", "best", "end")
CHECKPOINT_EVERY, STEPS = 7, 210


@dataclass
class Life:
    """One process of the run, and what is known of it."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str | None] = field(default_factory=queue.Queue)
    step: int = 0
    phase: str = ""

    def follow(self) -> bool:
        """Takes in what was said; False when the process has ended."""
        while not self.lines.empty():
            line = self.lines.get()
            if line is None:
                return False
            self.phase, number = line.split()
            if self.phase == "train":
                self.step = int(number)
        return True


@dataclass(frozen=True)
class Kill:
    """When a life ends."""

    kind: str
    """``start``, ``step``, ``phase``, or the beginning of a name that is seen in the run folder."""
    after_step: int = 0
    delay: float = 0.0


def start(config: Path, run: Path) -> Life:
    command = [sys.executable, "-c", _CHILD, str(config), str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    life = Life(process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            life.lines.put(line)
        life.lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return life


def due(life: Life, kill: Kill, run: Path) -> bool:
    """Whether the moment of a kill has come."""
    if kill.kind == "start":
        return life.phase == "begun"
    if kill.kind == "phase":
        return life.phase == "final-evaluation"
    if kill.kind == "step":
        return life.step > kill.after_step
    places = (run / "checkpoints", run) if life.step > kill.after_step or kill.kind.endswith("predictions") else ()
    return any(entry.name.startswith(kill.kind) for place in places for entry in listed(place))


def listed(place: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            yield from entries
    except OSError:
        return


def live_and_die(config: Path, run: Path, kill: Kill | None) -> Life:
    """Runs one life to its kill, or to its end."""
    life = start(config, run)
    deadline = time.monotonic() + 240
    while life.follow():
        assert time.monotonic() < deadline, f"{kill} has not come in four minutes"
        if kill is not None and due(life, kill, run):
            time.sleep(kill.delay)
            os.kill(life.process.pid, signal.SIGKILL)
            break
        time.sleep(0.0005)
    life.process.wait()
    while life.follow() and not life.lines.empty():
        pass
    return life


def plan(kills: int, seed: int) -> list[Kill]:
    """Kills in the order of the run: most within training, spread over its steps, the last ones at its end."""
    draw = random.Random(seed)
    last = [Kill("step", STEPS - 2, 0.05), Kill("phase", 0, 0.05), Kill(".partial-predictions", 0, 0.01)][-kills:]
    kinds = ["start", "step", ".partial-step-", ".replaced-best", "step", ".partial-best", ".partial-step-", "step"]
    early = [
        Kill(kinds[i % len(kinds)], i * (STEPS - 20) // max(1, kills - len(last)), draw.random() * limit)
        for i in range(kills - len(last))
        for limit in [{"start": 1.0, "step": 0.3}.get(kinds[i % len(kinds)], 0.006)]
    ]
    return early + last


def configured(data: Path, folder: Path, *, workers: int) -> Path:
    config = small_config(
        data,
        steps=STEPS,
        checkpoint_every=CHECKPOINT_EVERY,
        evaluation={"every": 5},
        ema_decay=0.9,
        clip_norm=5.0,
        data={"workers": workers},
        threads=1,
    )
    assert isinstance(config, RunConfig)
    file = folder / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    return file


def told(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in events(run) if line["event"] in _KINDS]


def check_equal(broken: Path, whole: Path) -> None:
    """Asserts that nothing tells the killed run from the unbroken one but times and what was said of resuming."""
    for name in ("best", "last"):
        assert same_weights(weights(broken, name), weights(whole, name)), name
    states = [load_checkpoint(run / "checkpoints" / f"step-{STEPS}") for run in (broken, whole)]
    assert plain(states[0]) == plain(states[1])
    assert told(broken) == told(whole)
    saved = [line["step"] for line in events(broken, "checkpoint")]
    assert len(saved) == len(set(saved))
    scores = [without_times(json.loads((run / "metrics.json").read_text())) for run in (broken, whole)]
    assert scores[0] == scores[1]
    assert not list(broken.rglob(".*")), "something unfinished is left"


def plain(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.dtype, tuple(state.shape), state.contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, list | tuple) else state


def kill_and_compare(folder: Path, kills: int, *, seed: int = 0, workers: int = 0) -> list[str]:
    """Kills a run ``kills`` times and compares it with an unbroken one; returns a line for each life."""
    config = configured(write_blocks(folder / "data"), folder, workers=workers)
    whole, broken = folder / "whole", folder / "broken"
    assert live_and_die(config, whole, None).process.returncode == 0
    lines = []
    for number, kill in enumerate(plan(kills, seed), 1):
        life = live_and_die(config, broken, kill)
        assert life.process.returncode == -signal.SIGKILL, (kill, life.process.communicate()[1])
        kept = [int(path.name[5:]) for path in list_checkpoints(broken / "checkpoints")]
        lost = max(life.step - max(kept, default=0), 0)
        left = sorted(path.name for path in broken.rglob(".*") if path.name != ".lock")
        lines.append(f"{number:2} {kill.kind:20} in {life.phase or 'start'} at step {life.step}: lost {lost} {left}")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
        assert lost <= CHECKPOINT_EVERY, "only the steps since the last checkpoint are repeated"
    last = live_and_die(config, broken, None)
    assert last.process.returncode == 0, last.process.communicate()[1]
    check_equal(broken, whole)
    return lines


@pytest.mark.slow
def test_run_killed_twenty_times_equals_an_unbroken_one(tmp_path: Path) -> None:
    assert len(kill_and_compare(tmp_path, 20)) == 20


@pytest.mark.slow
def test_run_with_loading_processes_killed_equals_an_unbroken_one(tmp_path: Path) -> None:
    assert len(kill_and_compare(tmp_path, 5, seed=1, workers=2)) == 5


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        kill_and_compare(Path(place), given.kills, seed=given.seed, workers=given.workers)
        sys.stdout.write(f"{given.kills} kills, equal bit for bit, {time.monotonic() - began:.0f} s\n")
