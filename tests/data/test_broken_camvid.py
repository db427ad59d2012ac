"""The detective against planted faults: it finds every one of them, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from broken_data import (
    OTHERS,
    TWENTY,
    Plant,
    ids_of,
    kind_of,
    plant_all,
    save,
    write_camvid,
)
from further_faults import FURTHER

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.fixes import load_fixes, open_with_fixes, write_fixes
from perpixel.data.inspection.inspect import Inspection, inspect_data
from perpixel.labels import LabelSpace

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_camvid = pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no camvid/ under PERPIXEL_DATA")
needs_isbi = pytest.mark.skipif(not (DATA / "isbi2012").is_dir(), reason="no isbi2012/ under PERPIXEL_DATA")
TRUE_NOTES = {"encoding", "class_imbalance", "thin_objects"}
"""What is true of the whole data."""


def found_files(found: Inspection) -> dict[str, set[str]]:
    return {one.kind: set(one.files) for one in found.findings if one.kind not in TRUE_NOTES}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("whole") / "CamVid")


def copy_of(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "CamVid"))


def test_twenty_planted_faults_are_of_twenty_kinds() -> None:
    assert len({kind_of(plant) for plant in TWENTY}) == 20


def test_inspect_data_without_faults_finds_true_notes_only(whole: Path) -> None:
    found = inspect_data(whole)
    assert {one.kind for one in found.findings} <= TRUE_NOTES
    assert found.count("error") == found.count("warning") == 0
    assert found.splits == {"train": 30, "val": 14}
    assert found.mending.to_dict() == {}


@pytest.mark.parametrize("plants", [TWENTY, OTHERS, FURTHER], ids=["twenty", "others", "further"])
def test_inspect_data_planted_faults_are_found_and_nothing_else(
    whole: Path, tmp_path: Path, plants: tuple[Plant, ...]
) -> None:
    root = copy_of(whole, tmp_path)
    expected = plant_all(root, plants)
    before = contents(root)
    assert found_files(inspect_data(root, workers=1)) == expected
    assert contents(root) == before


def test_inspect_data_with_fixes_is_readable_to_the_last_file(whole: Path, tmp_path: Path) -> None:
    root = copy_of(whole, tmp_path)
    plant_all(root, TWENTY)
    file = tmp_path / "fixes.yaml"
    write_fixes(file, inspect_data(root, workers=1).mending, root=root)
    source = open_with_fixes(root, load_fixes(file))
    assert source.labels is not None
    dataset = SegmentationDataset(source.splits["train"], source.labels)
    original = LabelSpace.load("camvid11")
    compared = 0
    for index, item in enumerate(dataset.items):
        target = dataset[index].target
        assert target is not None
        if item.name in ("train_011", "train_013", "train_014"):  # colours, multiplied, shifted
            intact = original.encode(ids_of(whole / "trainannot" / f"{item.name}.png"))
            np.testing.assert_array_equal(target.numpy(), intact)
            compared += 1
    assert compared == 3
    assert any("11 images are left out and 3 masks are read" in note for note in source.notes)


def test_inspect_data_shift_of_all_masks_is_one_finding_with_a_label_file(whole: Path, tmp_path: Path) -> None:
    root = copy_of(whole, tmp_path)
    for mask in (*(root / "trainannot").iterdir(), *(root / "valannot").iterdir()):
        save(ids_of(mask) + np.uint8(1), mask)
    found = inspect_data(root, workers=1)
    shifted = [one for one in found.findings if one.kind == "off_by_one"]
    assert [one.count for one in shifted] == [44]
    assert found.mending.labels is not None
    assert found.mending.labels["stored"][1] == "Sky"
    assert found.mending.masks == {}


def test_inspect_data_processes_change_no_finding(whole: Path, tmp_path: Path) -> None:
    root = copy_of(whole, tmp_path)
    plant_all(root, TWENTY)
    assert inspect_data(root, workers=2).to_dict() == inspect_data(root, workers=1).to_dict()


def test_inspection_loads_no_torch() -> None:
    code = "import sys, perpixel.data.inspection.inspect, perpixel.data.fixes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def part_of_camvid(root: Path, *, train: int, val: int) -> Path:
    """Copies every ninth image and the lists: the shared data is never linked to, so that no fault can reach it."""
    for split, count in (("train", train), ("val", val)):
        names = [line.split()[0].rsplit("/", 1)[1] for line in (DATA / "camvid" / f"{split}.txt").open()]
        names = names[:: len(names) // count][:count]
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
            for name in names:
                (root / folder / name).write_bytes((DATA / "camvid" / folder / name).read_bytes())
        (root / f"{split}.txt").write_text("".join(f"{split}/{name} {split}annot/{name}\n" for name in names))
    return root


@pytest.mark.data
@needs_camvid
@pytest.mark.parametrize("plants", [TWENTY, OTHERS, FURTHER], ids=["twenty", "others", "further"])
def test_inspect_data_real_camvid_planted_faults_are_found_and_nothing_else(
    tmp_path: Path, plants: tuple[Plant, ...]
) -> None:
    root = part_of_camvid(tmp_path / "CamVid", train=40, val=20)
    expected = plant_all(root, plants)
    assert found_files(inspect_data(root, workers=1)) == expected


@pytest.mark.data
@pytest.mark.slow
@needs_camvid
def test_inspect_data_clean_camvid_finds_true_notes_only() -> None:
    found = inspect_data(DATA / "camvid")
    assert {one.kind for one in found.findings} == TRUE_NOTES


@pytest.mark.data
@needs_isbi
def test_inspect_data_clean_isbi_finds_how_it_is_encoded_only() -> None:
    found = inspect_data(DATA / "isbi2012", workers=1)
    assert [one.kind for one in found.findings] == ["encoding"]
