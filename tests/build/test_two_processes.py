"""A whole run by two processes over gloo: as one process makes it, written and told by one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import two_process_work as work
from process_pair import ProcessPair
from small_runs import decisions, events, small_config, weights, write_blocks

from perpixel.build import RunResult, train
from perpixel.config import RunConfig, dump_config
from perpixel.errors import ConfigError

SIZE = {"batch_size": 4}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images to score: two processes score three and two of them."""
    return write_blocks(tmp_path_factory.mktemp("uneven"), train=6, val=5)


@pytest.fixture(scope="module")
def config(uneven: Path) -> RunConfig:
    return small_config(uneven, data=SIZE, freeze_batch_norm=True, threads=1)


@pytest.fixture(scope="module")
def one(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run of one process."""
    return train(config, out=tmp_path_factory.mktemp("one") / "run")


def curve(run: Path) -> list[float]:
    return [event["values"]["total"] for event in events(run, "train")]


def assert_alike(run: Path, other: Path) -> None:
    """The same run to the rounding of float32: losses, scores while training, weights, final confusion matrix."""
    assert curve(run) == pytest.approx(curve(other), rel=1e-5)
    scored = [[event["values"]["mean_iou"] for event in events(folder, "evaluation")] for folder in (run, other)]
    assert scored[0] == pytest.approx(scored[1], abs=1e-3)
    for name, value in weights(other).items():
        found = weights(run)[name].float()
        assert (found - value.float()).abs().max() <= 1e-4 * max(1.0, float(value.abs().max())), name
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (run, other))
    assert found["confusion"] == expected["confusion"]
    assert found["images"] == 5


def test_train_two_processes_give_the_run_of_one(
    pair: ProcessPair, config: RunConfig, one: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    main, other = pair.results(work.trains, config, run)
    assert_alike(run, one.folder)
    assert main["confusion"] == other["confusion"]
    assert other["seen"] == []
    assert main["seen"] == [event["event"] for event in events(run)]
    said = decisions(run)
    assert said["processes"] == "2: each takes 2 of the 4 images of a batch"
    assert said["parallel"].startswith("ddp: ")
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-3", "step-4"]
    assert len(list((run / "predictions").glob("*.png"))) == 5


def test_train_stopped_by_sigterm_to_one_of_two_goes_on_in_one_process(
    pair: ProcessPair, config: RunConfig, one: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for found in pair.results(work.trains, config, run, 2):
        assert (found["interrupted"], found["signal"], found["steps"]) == (True, "SIGTERM", 2)
    assert not (run / "metrics.json").exists()
    train(config, resume=run)
    assert_alike(run, one.folder)
    assert any("processes 2 -> 1" in event["message"] for event in events(run, "warning"))


def test_train_stopped_in_one_process_goes_on_in_two(
    pair: ProcessPair, config: RunConfig, one: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(config, out=run, on_progress=lambda p: _terminate() if (p.phase, p.done) == ("train", 2) else None)
    pair.results(work.trains, config, run, None, True)
    assert_alike(run, one.folder)


def _terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_train_batch_norm_on_the_cpu_is_said_not_to_be_shared(pair: ProcessPair, uneven: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pair.results(work.trains, small_config(uneven, data=SIZE, steps=1, threads=1), run)
    assert "SyncBatchNorm needs CUDA; batch norm sees 2 images at a time and not all" in decisions(run)["batch norm"]


def test_train_batch_that_two_cannot_share_is_refused_before_anything_is_written(
    pair: ProcessPair, uneven: Path, tmp_path: Path
) -> None:
    for error in pair.run(work.trains, small_config(uneven, data={"batch_size": 3}), tmp_path / "run"):
        assert type(error) is ConfigError
        assert "data.batch_size = 3 is the batch of all processes together" in str(error)
        assert "nearest batch sizes: 2 or 4" in str(error)
    assert not (tmp_path / "run").exists()


# --- torchrun itself: starts of processes, slow ---------------------------------------------------------------------


class Started:
    """``perpixel train --processes 2`` as a user starts it."""

    def __init__(self, config: RunConfig, folder: Path, *tokens: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        self.run = folder / "run"
        command = [sys.executable, "-m", "perpixel", "train", str(folder / "config.yaml"), "--out", str(self.run)]
        self.process = subprocess.Popen(
            [*command, "--processes", "2", *tokens],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")},
        )

    def wait_for(self, checkpoint: str) -> None:
        ends = time.monotonic() + 200
        while not (self.run / "checkpoints" / checkpoint).exists():
            assert time.monotonic() < ends
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def worker(self, rank: int) -> int:
        """Finds the process of a rank among the descendants of this one."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and f"RANK={rank}" in _words(folder / "environ"):
                words = _words(folder / "cmdline")
                if str(self.run) in words and "torch.distributed.run" not in words:
                    return int(folder.name)
        raise AssertionError(f"rank {rank} does not run")

    def end(self) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=280)
        return self.process.returncode, out, errors


def _words(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc")


@pytest.mark.slow
@needs_proc
def test_processes_killed_worker_is_started_again_and_the_run_goes_on(
    config: RunConfig, one: RunResult, tmp_path: Path
) -> None:
    started = Started(config, tmp_path)
    started.wait_for("step-2")
    os.kill(started.worker(1), signal.SIGKILL)
    code, out, errors = started.end()
    assert code == 0, errors
    assert "resume: step" in out
    assert_alike(started.run, one.folder)


@pytest.mark.slow
@needs_proc
def test_processes_sigterm_saves_and_ends_in_order(config: RunConfig, one: RunResult, tmp_path: Path) -> None:
    started = Started(config, tmp_path, "steps=400", "evaluation.every=400")
    started.wait_for("step-2")
    started.process.send_signal(signal.SIGTERM)
    code, out, errors = started.end()
    assert code == 143, errors
    assert out.count("interrupted at step") == 1
    assert "Traceback" not in errors
    ended = events(started.run, "interrupted")[0]
    assert (started.run / "checkpoints" / f"step-{ended['step']}").exists()


@pytest.mark.slow
def test_processes_mistake_is_said_once_and_not_tried_again(config: RunConfig, tmp_path: Path) -> None:
    code, _, errors = Started(config, tmp_path, "data.batch_size=3").end()
    assert code == 2
    assert errors.count("error:") == 1
    assert "data.batch_size = 3" in errors
    assert "Traceback" not in errors
    assert "torch.distributed" not in errors
