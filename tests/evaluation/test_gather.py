"""Evaluation by two processes, of an uneven number of images, equals that of one."""

from __future__ import annotations

from datetime import timedelta
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_evaluate import ColorNetwork, K, make_samples

from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.evaluation import Evaluation, Measures, Totals, evaluate_network
from perpixel.evaluation.gather import gather_totals
from perpixel.inference import Segmenter
from perpixel.labels import LabelSpace

SIZES = [(6, 8), (6, 8), (5, 4), (6, 8), (3, 3)]


def evaluated(rank: int, world_size: int) -> Evaluation:
    return evaluate_network(
        Segmenter(ColorNetwork(), LabelSpace.numbered(K)),
        make_samples(SIZES),
        measures=Measures(boundary=True),
        rank=rank,
        world_size=world_size,
    )


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    found = evaluated(rank, 2)
    totals = found.totals
    try:
        gather_totals(Totals(2), DataError("image 3 is broken") if rank == 1 else None)
    except DataError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    np.savez(folder / f"{rank}.npz", confusion=found.confusion, names=totals.names, bf=totals.bf_scores)
    dist.destroy_process_group()


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="starts processes by forking")
def test_evaluate_network_two_processes_give_the_matrix_of_one(tmp_path: Path) -> None:
    processes = [get_context("fork").Process(target=run_rank, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=90)
        assert process.exitcode == 0
    alone = evaluated(0, 1)
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_array_equal(found["confusion"], alone.confusion)
        np.testing.assert_array_equal(found["bf"], alone.totals.bf_scores)
        assert tuple(found["names"].tolist()) == alone.totals.names == tuple(f"image {i}" for i in range(5))
    # An error of one part reaches the other, which names the rank.
    assert (tmp_path / "0.txt").read_text() == "rank 1 of 2, in the evaluation: image 3 is broken"
    assert (tmp_path / "1.txt").read_text() == "image 3 is broken"


def test_gather_totals_without_processes_refused() -> None:
    with pytest.raises(RunError, match=r"torch\.distributed is not initialised; start with torchrun"):
        gather_totals(Totals(2))


def test_evaluate_network_rank_outside_the_world_refused() -> None:
    with pytest.raises(InvalidValue, match=r"rank is one of 0\.\.1, got 2"):
        evaluate_network(None, [], rank=2, world_size=2)
