"""The search of dense-CRF numbers on scores that the network gave once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perpixel.data import Sample
from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.evaluation import evaluate_network
from perpixel.evaluation.crf_search import CRFGrid, StoredScores, count_pixels, mean_iou, search_dense_crf
from perpixel.inference import Segmenter
from perpixel.inference.dense_crf import DenseCRF
from perpixel.labels import LabelSpace
from perpixel.types import Preprocessing, SegOutput

START = DenseCRF(iterations=2, bilateral_weight=1.0, bilateral_width=5, color_width=20, normalization="after")
GRID = CRFGrid(bilateral_weight=(1.0, 8.0), bilateral_width=(2.0, 5.0, 9.0), color_width=(5.0, 20.0))


class NoisyNetwork(nn.Module):
    """Reads the classes off the picture, three cells of it wrong: what a CRF can mend."""

    num_classes, logit_stride, align_corners, margin, minimum_size = 3, 2, False, 0, 1
    preprocessing = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height + height % 2, width + width % 2

    def forward(self, images: Tensor) -> SegOutput:
        self.calls += 1
        small = torch.nn.functional.avg_pool2d(images[:, :1], 2)
        scores = -(small - torch.tensor([0.1, 0.5, 0.9]).view(1, -1, 1, 1)).abs() * 4
        noise = torch.randn(scores.shape, generator=torch.Generator().manual_seed(self.calls))
        return SegOutput(scores + 0.6 * noise)


class Blocks:
    """Three pictures of three bands with their truth, of different sizes."""

    def __init__(self, *, masked: bool = True) -> None:
        self.masked = masked

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        height, width = 12 + index, 15
        target = torch.zeros(height, width, dtype=torch.uint8)
        target[:, 5 + index :] = 1
        target[7:, 3:9] = 2
        generator = torch.Generator().manual_seed(index)
        shade = torch.tensor([26, 128, 230])[target.long()] + torch.randint(
            -25, 26, (height, width), generator=generator
        )
        target[0] = 255
        image = shade.clamp(0, 255).to(torch.uint8).expand(3, -1, -1).contiguous()
        return Sample(image=image, target=target if self.masked else None, name=f"b{index}", size=(height, width))


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(NoisyNetwork(), LabelSpace.numbered(3), crf=DenseCRF(iterations=1))


@pytest.fixture
def stored(segmenter: Segmenter, tmp_path: Path) -> StoredScores:
    return StoredScores.of(segmenter, Blocks(), range(3), tmp_path / "scores")


def scored_anew(crf: DenseCRF | None) -> float:
    """The plain twin: the whole evaluation with this CRF behind the network."""
    network = Segmenter(NoisyNetwork(), LabelSpace.numbered(3), crf=crf)
    return float(evaluate_network(network, Blocks()).scores()["mean_iou"])


def test_stored_scores_run_the_network_once_and_count_as_the_evaluation_does(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    stored = StoredScores.of(
        segmenter, Blocks(), [0, 1, 2], tmp_path / "s", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for crf in (None, START):
        assert mean_iou(count_pixels(stored, crf)) == scored_anew(crf)
    network: Any = segmenter.network
    assert (network.calls, len(stored)) == (3, 3)


def test_grid_search_finds_what_trying_everything_finds(stored: StoredScores) -> None:
    grid = CRFGrid(bilateral_weight=(1.0, 8.0), bilateral_width=(5.0,), color_width=(5.0, 20.0))
    found = search_dense_crf(stored, START, grid, method="grid")
    base = replace(START, spatial_weight=3.0, spatial_width=3.0)
    every = {
        numbers: mean_iou(
            count_pixels(
                stored,
                replace(base, bilateral_weight=numbers[0], bilateral_width=numbers[1], color_width=numbers[2]),
            )
        )
        for numbers in product(grid.bilateral_weight, grid.bilateral_width, grid.color_width)
    }
    assert len(found.trials) == 4  # the start is one of them and scored once
    assert found.best.mean_iou == max(every.values()) == mean_iou(found.counts) == scored_anew(found.best.crf)
    assert found.best.mean_iou > scored_anew(None)
    assert found.start.mean_iou == every[1.0, 5.0, 20.0]


def test_coordinate_search_ends_where_no_single_number_helps(stored: StoredScores) -> None:
    plans: list[tuple[int, int]] = []
    found = search_dense_crf(stored, START, GRID, on_progress=lambda done, planned: plans.append((done, planned)))
    tried = {(t.crf.bilateral_weight, t.crf.bilateral_width, t.crf.color_width): t.mean_iou for t in found.trials}
    assert len(tried) == len(found.trials) < 12
    best = (found.best.crf.bilateral_weight, found.best.crf.bilateral_width, found.best.crf.color_width)
    axes = (GRID.bilateral_weight, GRID.bilateral_width, GRID.color_width)
    for axis, values in enumerate(axes):
        for value in values:
            neighbour = (*best[:axis], value, *best[axis + 1 :])
            assert tried[neighbour] <= found.best.mean_iou
    assert [done for done, _ in plans] == list(range(1, 3 * len(tried) + 1))
    assert all(done <= planned for done, planned in plans)
    assert plans[-1][0] == plans[-1][1]


def test_equal_scores_keep_the_start_and_its_other_numbers(stored: StoredScores) -> None:
    start = replace(START, iterations=0, spatial_weight=7.0, spatial_width=9.0)
    found = search_dense_crf(stored, start, GRID)
    assert found.best.crf == replace(start, spatial_weight=3.0, spatial_width=3.0)
    assert mean_iou(found.counts) == scored_anew(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "random"}, "method is one of coordinate, grid, got 'random'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"start": DenseCRF(bilateral_weight=(1.0, 1.0, 1.0))}, "varies one weight for all classes"),
    ],
)
def test_search_bad_arguments_are_refused(stored: StoredScores, options: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        search_dense_crf(stored, **options)


@pytest.mark.parametrize("values", [(), (0.0,), (float("nan"),)])
def test_grid_of_other_numbers_is_refused(values: Any) -> None:
    with pytest.raises(InvalidValue, match="color_width lists positive numbers to try"):
        CRFGrid(color_width=values)


def test_search_without_images_is_refused(tmp_path: Path) -> None:
    empty = StoredScores(tmp_path, num_classes=3, device=torch.device("cpu"))
    with pytest.raises(InvalidValue, match="there are no images to search on"):
        search_dense_crf(empty)


def test_images_that_cannot_be_used_are_named(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="b0: the image has no mask, so no numbers can be chosen by it"):
        StoredScores.of(segmenter, Blocks(masked=False), [0], tmp_path / "a")
    stored = StoredScores(tmp_path / "b", num_classes=2, device=torch.device("cpu"))
    sample = Blocks()[0]
    assert sample.target is not None
    stored.add("b0", sample.image, sample.target, segmenter.unrefined_scores(sample.image[None]))
    with pytest.raises(InvalidValue, match=r"b0: .*"):
        count_pixels(stored, None)
    (tmp_path / "c").write_bytes(b"")
    with pytest.raises(RunError, match="scores cannot be kept"):
        StoredScores.of(segmenter, Blocks(), [0], tmp_path / "c")


def test_stored_scores_keep_image_target_and_scores(stored: StoredScores) -> None:
    for index, (name, image, target, scores) in enumerate(stored):
        sample = Blocks()[index]
        assert sample.target is not None
        assert name == sample.name
        assert torch.equal(image[0], sample.image)
        assert np.array_equal(target, sample.target.numpy())
        assert scores.logits.shape == (1, 3, (12 + index + 1) // 2, 8)
        assert scores.size == sample.size
