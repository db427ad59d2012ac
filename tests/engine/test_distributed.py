"""Two processes that train one network, as one process does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed_work as work
import numpy as np
import pytest
import torch
from distributed_work import Job
from process_pair import ProcessPair

from perpixel.engine.checkpoints import read_manifest
from perpixel.engine.distributed import World, is_restarted, joined_world
from perpixel.errors import ConfigError, DataError, RunError

# --- speaking to each other ----------------------------------------------------------------------------------------


def test_world_of_two_hears_every_rank(pair: ProcessPair) -> None:
    main, other = pair.results(work.meets)
    for found in (main, other):
        assert found["gather"] == ["from 0", "from 1"]
        assert found["from_main"] == ["of", "main"]
        assert found["worst"] == 1
        assert found["sum"] == [3.0, 6.0]
        assert found["mean"] == 0.5
        assert found["largest"] == 1
        assert found["share"] == 3
        assert found["many"] == list(range(5))
    assert sorted((main["speaks"], other["speaks"])) == [False, True]


def test_world_of_one_answers_at_once() -> None:
    world = World()
    tensor = torch.tensor([1.0, 2.0])
    assert world.is_main
    assert world.speaks()
    assert world.gather(3) == [3]
    assert world.from_main(lambda: 4) == 4
    assert world.main_first(lambda: 5) == 5
    assert world.worst(2) == 2
    assert world.share(7) == 7
    for found in (world.sum(tensor), world.mean(tensor), world.largest(tensor)):
        assert torch.equal(found, tensor)
    world.barrier()
    with pytest.raises(DataError, match="image-7 is broken"):
        work.one_errs(world, 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_agree_error_of_one_rank_is_raised_in_all_and_names_it(pair: ProcessPair, rank: int) -> None:
    for error in pair.run(work.one_errs, rank):
        assert type(error) is DataError
        assert str(error) == f"rank {rank} of 2: image-7 is broken"


def test_agree_error_of_all_ranks_is_said_plainly(pair: ProcessPair) -> None:
    assert [str(error) for error in pair.run(work.all_err)] == ["image-7 is broken"] * 2


def test_agree_bug_of_one_rank_ends_the_other_too(pair: ProcessPair) -> None:
    main, other = pair.run(work.one_has_a_bug)
    assert type(main) is RunError
    assert str(main) == "rank 1 of 2: ZeroDivisionError: a bug"
    assert type(other) is ZeroDivisionError


def test_barrier_rank_that_leaves_is_noticed_by_those_who_wait(pair: ProcessPair) -> None:
    main, other = pair.run(work.one_leaves)
    assert type(main) is RunError
    assert str(main) == "rank 1 of 2 failed: image-7 is broken"
    assert type(other) is DataError


def test_share_uneven_batch_names_both_numbers_and_the_nearest(pair: ProcessPair) -> None:
    for error in pair.run(work.shares_unevenly):
        assert type(error) is ConfigError
        assert "data.batch_size = 5" in str(error)
        assert "2 processes cannot share it evenly; nearest batch sizes: 4 or 6" in str(error)
        assert "nearest numbers of processes: 1 or 5" in str(error)


def test_share_batch_smaller_than_the_world_names_what_works() -> None:
    with pytest.raises(ConfigError, match=r"nearest batch sizes: 4; nearest numbers of processes: 3$"):
        World(rank=0, size=4).share(3)


def test_joined_world_without_torchrun_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world() as world:
        assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
        assert not torch.distributed.is_initialized()


def test_joined_world_with_half_an_environment_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"), joined_world():
        pass


@pytest.mark.parametrize("text", ["soon", "0", "-3", "inf"])
def test_joined_world_with_a_timeout_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PERPIXEL_TIMEOUT_SECONDS", text)
    with pytest.raises(ConfigError, match="PERPIXEL_TIMEOUT_SECONDS is a number of seconds over 0"), joined_world():
        pass


def test_placed_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="rank 1 of this machine finds 1 GPUs"):
        World(rank=1, size=2, local_rank=1).placed(torch.device("cuda"))


def test_is_restarted_reads_torchruns_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not is_restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert is_restarted()


# --- training ------------------------------------------------------------------------------------------------------


def assert_alike(one: dict[str, Any], two: dict[str, Any], *, rtol: float = 1e-5) -> None:
    """The same to the rounding of float32."""
    assert two["losses"].keys() == one["losses"].keys()
    assert two["losses"] == pytest.approx(one["losses"], rel=rtol)
    assert two["scores"] == pytest.approx(one["scores"], abs=0.01)
    assert two["weights"].keys() == one["weights"].keys()
    for name, value in one["weights"].items():
        np.testing.assert_allclose(two["weights"][name], value, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd", "accumulate": 2, "frozen_batch_norm": True}, {"kind": "fsdp2", "accumulate": 2}],
    ids=["ddp", "ddp accumulating with frozen batch norm", "fsdp2"],
)
def test_fit_two_processes_train_as_one(pair: ProcessPair, tmp_path: Path, changes: dict[str, Any]) -> None:
    one = work.alone(Job(tmp_path / "one", **changes))
    main, other = pair.results(work.trained, Job(tmp_path / "two", **changes))
    assert_alike(one, main)
    for name, value in main["weights"].items():
        np.testing.assert_array_equal(other["weights"][name], value)
    assert one["losses"][6] < one["losses"][1]


def test_fit_resume_from_two_to_one_and_back_gives_the_weights_of_an_unbroken_run(
    pair: ProcessPair, tmp_path: Path
) -> None:
    unbroken = work.alone(Job(tmp_path / "unbroken"))
    job = Job(tmp_path / "run", interrupt_at=2)
    assert [found["steps"] for found in pair.results(work.trained, job)] == [2, 2]
    manifest = read_manifest(tmp_path / "run" / "checkpoints" / "step-2")
    assert manifest["world_size"] == 2
    assert manifest["torch"] == torch.__version__
    assert any(name.startswith("shards/") for name in manifest["files"])
    alone = work.alone(replace(job, resume=True, interrupt_at=4))
    assert (alone["steps"], alone["interrupted"]) == (4, "SIGTERM")
    assert read_manifest(tmp_path / "run" / "checkpoints" / "step-4")["world_size"] == 1
    main, _ = pair.results(work.trained, replace(job, resume=True, interrupt_at=None))
    assert_alike(unbroken, main)


def test_fit_resume_from_ddp_to_fsdp2_to_one_process_gives_the_same_weights(pair: ProcessPair, tmp_path: Path) -> None:
    unbroken = work.alone(Job(tmp_path / "unbroken"))
    job = Job(tmp_path / "run", interrupt_at=2)
    pair.results(work.trained, job)
    sliced = pair.results(work.trained, replace(job, kind="fsdp2", resume=True, interrupt_at=4))
    assert [found["steps"] for found in sliced] == [4, 4]
    assert_alike(unbroken, work.alone(replace(job, resume=True, interrupt_at=None)))
    again = Job(tmp_path / "again", interrupt_at=3)
    work.alone(again)
    main, _ = pair.results(work.trained, replace(again, kind="fsdp2", resume=True, interrupt_at=None))
    assert_alike(unbroken, main)


def test_fit_nan_on_one_rank_stops_all_at_that_step_with_its_images(pair: ProcessPair, tmp_path: Path) -> None:
    errors = pair.run(work.trained, Job(tmp_path / "run", poison=(1, 3)))
    for error in errors:
        assert type(error) is RunError
        assert "steps (4), and they were skipped. In the batch of step 4, rank 1 of 2: the normalised images" in str(
            error
        )
        assert "step 4: image-3-2, image-3-3. Look" in str(error)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines if line["event"] == "non_finite"] == [[4]]


def test_fit_batch_that_one_rank_cannot_read_ends_all(pair: ProcessPair, tmp_path: Path) -> None:
    for error in pair.run(work.trained, Job(tmp_path / "run", missing=(1, 3))):
        assert type(error) is DataError
        assert str(error) == "rank 1 of 2: image-3 cannot be read"


def test_fit_error_of_one_rank_in_an_evaluation_ends_all(pair: ProcessPair, tmp_path: Path) -> None:
    for error in pair.run(work.fails_in_evaluation, tmp_path / "run"):
        assert type(error) is DataError
        assert str(error) == "rank 1 of 2: image-7 is broken"


def test_fit_error_of_one_rank_within_a_step_ends_those_who_wait_for_its_gradients(
    pair: ProcessPair, tmp_path: Path
) -> None:
    main, other = pair.run(work.fails_alone, tmp_path / "run")
    assert str(main) == "rank 1 of 2 failed: the loss of rank 1 fails"
    assert str(other) == "the loss of rank 1 fails"
