"""`perpixel data stats` without the command line: splits, labels, weights, advice, real data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.build import Progress, data_statistics
from perpixel.errors import ConfigError, DataError

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
                tmp_path / split / f"images/{k}.png"
            )
            Image.fromarray(random.integers(0, 3, (40, 50), dtype=np.uint8)).save(tmp_path / split / f"masks/{k}.png")
    return tmp_path


def test_data_statistics_of_folder_describes_the_training_split(folder: Path) -> None:
    seen: list[Progress] = []
    found = data_statistics(folder, on_progress=seen.append)
    assert found["split"] == "train"
    assert found["splits"] == {"train": 3, "val": 3}
    assert sum(row["pixels"] for row in found["classes"]) == 3 * 40 * 50
    assert set(found["weights"]) >= {"median_frequency_eigen", "enet", "inverse_frequency", "effective_number"}
    assert [entry["what"] for entry in found["advice"]] == ["loss", "class weights", "crop size", "sampler"]
    assert (seen[-1].done, seen[-1].total) == (3, 3)


def test_data_statistics_of_two_folders_equals_that_of_the_split(folder: Path) -> None:
    pair = data_statistics(folder / "val/images", folder / "val/masks")
    assert pair["split"] == "all"
    assert pair["classes"] == data_statistics(folder, split="val")["classes"]


def test_data_statistics_where_all_is_ignored_advises_nothing(folder: Path) -> None:
    for path in (folder / "train/masks").iterdir():
        Image.fromarray(np.full((40, 50), 255, np.uint8)).save(path)
    found = data_statistics(folder, labels="3")
    assert found["advice"] == []
    assert found["weights"] == {}


def test_data_statistics_unknown_split_or_labels_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'vall'.*did you mean 'val'.*There are: train, val"):
        data_statistics(folder, split="vall")
    with pytest.raises(ConfigError, match="no label space 'camvid12'"):
        data_statistics(folder, labels="camvid12")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
def test_data_statistics_of_real_camvid_gives_the_published_definition_of_median_frequency() -> None:
    found = data_statistics(DATA / "camvid", color_images=1)
    eigen = (0.2793, 0.2017, 4.7865, 0.149, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587)
    assert found["weights"]["median_frequency_eigen"] == pytest.approx(eigen, abs=5.1e-5)
    assert found["classes"][10]["images"] == 201
