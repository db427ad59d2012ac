"""plan_memory: what fits, found from few counts; and what a run says that was out of memory."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TINY, events, small_config, write_blocks

from perpixel.build import memory_plan, train
from perpixel.build.memory_plan import MemoryPlan, out_of_memory, plan_memory
from perpixel.build.resume_check import config_changes
from perpixel.config import ModelChoice, RunConfig, apply_overrides
from perpixel.errors import InvalidValue, PerpixelError, RunError

REFUSED = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 512000000 bytes. Error code 12"


class FakeProbe:
    """Counts 10 MB, and a byte per pixel of the batch plus what grows with its square."""

    def __init__(self, *, square: float = 0.0, unit: int = 1) -> None:
        self.weights, self.square, self.unit = 0, square, unit
        self.asked: list[tuple[int, tuple[int, int]]] = []

    def bytes_of(self, batch: int, crop: tuple[int, int]) -> int:
        self.asked.append((batch, crop))
        pixels = batch * math.prod(crop)
        return round(10_000_000 + pixels + self.square * pixels**2)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height // self.unit * self.unit, width // self.unit * self.unit


def planned(memory: int, probe: Any, **changes: Any) -> MemoryPlan:
    data = {"crop_size": [128, 256], "batch_size": 4}
    return plan_memory(small_config("unused", data=data), 3, memory=memory, probe=probe, **changes)


def fcn() -> RunConfig:
    whole = small_config("unused", data={"crop_size": [64, 96], "batch_size": 4})
    stage = whole.stages[0].model_copy(update={"model": ModelChoice(name="fcn", backbone=TINY, options={"width": 8})})
    return whole.model_copy(update={"stages": (stage,)})


@pytest.mark.parametrize("square", [0.0, 1e-8])
@pytest.mark.parametrize("memory", [10_050_000, 11_000_000, 13_000_000, 60_000_000])
def test_plan_memory_largest_batch_fits_and_one_more_does_not(memory: int, square: float) -> None:
    probe = FakeProbe(square=square)
    plan = planned(memory, probe)
    assert len(probe.asked) <= 10
    most = plan.largest_batch
    assert most >= 1
    assert probe.bytes_of(most, (128, 256)) <= memory
    assert probe.bytes_of(math.ceil(1.1 * most) + 1, (128, 256)) > memory
    assert plan.easy_batch <= most
    assert plan.fits == (most >= 4)


def test_plan_memory_largest_crop_keeps_proportions_and_fits() -> None:
    probe = FakeProbe()
    plan = planned(12_000_000, probe)
    assert plan.largest_crop == (480, 992)
    assert probe.bytes_of(4, (480, 992)) <= 12_000_000
    assert planned(12_000_000, FakeProbe(unit=64)).largest_crop == (448, 960)
    assert planned(10_010_000, FakeProbe()).largest_crop == (32, 64)
    assert planned(10**15, FakeProbe()).largest_crop == (4096, 8192)


def test_plan_memory_too_little_for_one_image_gives_none() -> None:
    plan = planned(10_000_100, FakeProbe())
    assert (plan.largest_batch, plan.largest_crop, plan.fits) == (0, None, False)
    assert "largest batch for this crop (128 x 256): 0; largest crop for this batch (4): none" in plan.text()
    assert json.loads(json.dumps(plan.to_dict()))["largest_crop"] is None


def test_plan_memory_processes_share_batch_and_memory() -> None:
    alone, shared = planned(20_000_000, FakeProbe()), planned(40_000_000, FakeProbe(), processes=2)
    assert shared.largest_batch == 2 * alone.largest_batch
    assert shared.memory == alone.memory


def test_plan_memory_nothing_to_plan_with_is_refused() -> None:
    with pytest.raises(InvalidValue, match="must be positive, got 0 bytes"):
        planned(0, FakeProbe())


def test_plan_memory_counts_a_real_network_exactly() -> None:
    from perpixel.build.memory_estimate import StepProbe

    probe = StepProbe(fcn(), 3, 0, "fp32")
    memory = probe.bytes_of(12, (64, 96)) + 1000
    plan = plan_memory(fcn(), 3, memory=memory, probe=probe)
    assert plan.largest_batch == 12
    assert plan.step_bytes == probe.bytes_of(4, (64, 96))
    assert plan.largest_crop is not None
    assert 2 * 64 * 96 <= math.prod(plan.largest_crop) <= 3 * 64 * 96
    assert not plan.measured


def test_plan_memory_measured_steps_are_added_to_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {1: 12_000_000, 2: 12_500_000}
    seen: list[torch.device] = []

    def steps(*_: object, batch_size: int, device: torch.device, **__: object) -> int:
        seen.append(device)
        return taken[batch_size]

    monkeypatch.setattr(memory_plan, "step_bytes", steps)
    plan = plan_memory(fcn(), 3, memory=10**8, probe=FakeProbe(), measure=True)  # type: ignore[arg-type]
    image = 64 * 96
    beyond_2 = 12_500_000 - 10_000_000 - 2 * image
    assert plan.measured
    assert plan.step_bytes == pytest.approx(10_000_000 + 4 * image + beyond_2 + 2 * (500_000 - image))
    assert seen == [torch.device("cpu")] * 2


def test_out_of_memory_names_what_was_asked_what_fits_and_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*_: object, **__: object) -> MemoryPlan:
        probe: Any = FakeProbe()
        return planned(10_000_000 + 3 * 128 * 256, probe)

    monkeypatch.setattr(memory_plan, "plan_memory", plan)
    config = small_config("unused", data={"crop_size": [128, 256], "batch_size": 4})
    found = str(out_of_memory(RuntimeError(REFUSED), config, 3, stage=0, device="cpu", run=Path("r")))
    assert "'main': out of memory with batches of 4 x 128 x 256: 512 MB more were asked for" in found
    assert "By the memory plan, batches of 3 fit" in found
    assert "`perpixel train --resume r data.batch_size=2 stages.0.accumulate=2`" in found
    assert "same 4 images per update" in found
    assert "data.crop_size=[96,192]" in found


def advice(monkeypatch: pytest.MonkeyPatch, config: RunConfig, *, stage: int = 0, processes: int = 1) -> str:
    """What is said where five images fit."""
    probe: Any = FakeProbe()
    plan = planned(10_000_000 + 5 * 128 * 256, probe)
    monkeypatch.setattr(memory_plan, "plan_memory", lambda *_, **__: plan)
    error = MemoryError()
    return str(out_of_memory(error, config, 3, stage=stage, device="cpu", run=Path("r"), processes=processes))


def test_out_of_memory_of_several_processes_names_a_batch_that_they_can_share(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("unused", data={"crop_size": [128, 256], "batch_size": 6})
    assert "data.batch_size=3 stages.0.accumulate=2" in advice(monkeypatch, config)
    found = advice(monkeypatch, config, processes=2)
    assert "data.batch_size=2 stages.0.accumulate=3" in found
    assert "fewer processes" in found
    found = advice(monkeypatch, config, processes=6)
    assert "--resume" not in found
    assert "fewer processes" in found


def test_out_of_memory_of_one_stage_leaves_the_batches_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("unused", data={"crop_size": [128, 256], "batch_size": 4})
    one = config.stages[0]
    config = config.model_copy(update={"stages": (one, one.model_copy(update={"name": "two"}))})
    found = advice(monkeypatch, config, stage=1)
    assert "stages.1.data.batch_size=2 stages.1.accumulate=2" in found
    overrides = ("stages.1.data.batch_size=2", "stages.1.accumulate=2")
    assert all(change.allowed for change in config_changes(config, apply_overrides(config, overrides)))


def test_out_of_memory_not_one_image_fits_leaves_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    empty: Any = FakeProbe()
    none = planned(10_000_001, empty)
    monkeypatch.setattr(memory_plan, "plan_memory", lambda *_, **__: none)
    found = str(out_of_memory(MemoryError(), fcn(), 3, stage=0, device="cpu", run=Path("r")))
    assert "not even one image of this crop fits" in found
    assert "--resume" not in found


def test_out_of_memory_plan_that_fails_too_still_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> MemoryPlan:
        raise MemoryError

    monkeypatch.setattr(memory_plan, "plan_memory", fails)
    found = str(out_of_memory(MemoryError(), fcn(), 3, stage=0, device="cpu", run=Path("r")))
    assert "Take a smaller data.batch_size or data.crop_size" in found


def test_train_out_of_memory_run_goes_on_with_accumulated_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_blocks(tmp_path / "data")
    step = sys.modules["perpixel.engine.step"]
    real, calls = step.forward_loss, []

    def fails_at_third(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise RuntimeError(REFUSED)
        return real(*given)

    monkeypatch.setattr(step, "forward_loss", fails_at_third)
    crops = {"crop_size": [64, 64]}
    with pytest.raises(RunError, match=r"out of memory with batches of 2 x 64 x 64: 512 MB more") as caught:
        train(small_config(data, data=crops), out=tmp_path / "run")
    assert f"--resume {tmp_path / 'run'} data.batch_size=1 stages.0.accumulate=2" in str(caught.value)
    halves = small_config(data, data={**crops, "batch_size": 1}, accumulate=2)
    result = train(halves, resume=tmp_path / "run")
    assert result.scores["mean_iou"] is not None
    steps = [event["step"] for event in events(tmp_path / "run", "train")]
    assert max(steps) == 4
    with pytest.raises(PerpixelError, match="batches would be others"):
        train(small_config(data, data={**crops, "batch_size": 3}), resume=tmp_path / "run")


_LIMITED = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from small_runs import small_config
from perpixel.build import train
from perpixel.errors import RunError
import torch
config = small_config(sys.argv[1], data={"crop_size": [512, 512], "batch_size": 24}, threads=1)
torch.set_num_threads(1)
held = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = held + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    train(config, out=Path(sys.argv[2]))
except RunError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_train_under_a_real_limit_says_the_batch_that_fits(tmp_path: Path) -> None:
    data = write_blocks(tmp_path / "data")
    command = [sys.executable, "-c", _LIMITED, str(data), str(tmp_path / "run"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    message = json.loads(done.stdout.splitlines()[-1])
    assert "out of memory with batches of 24 x 512 x 512" in message
    assert "By the memory plan, batches of" in message
