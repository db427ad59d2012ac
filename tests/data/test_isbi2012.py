"""ISBI 2012: the challenge's stacks page by page, files per slice, and what is wrong with a stack."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from perpixel.data import SegmentationDataset, open_data
from perpixel.data.decoding import DamagedFile, image_size, read_mask, read_pixels
from perpixel.data.formats.isbi2012 import read_isbi2012
from perpixel.data.formats.tiff_pages import TiffPage, count_pages
from perpixel.errors import DataError

DATA = Path(os.environ.get("PERPIXEL_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_isbi = pytest.mark.skipif(not (DATA / "isbi2012").is_dir(), reason="no isbi2012/ under PERPIXEL_DATA")

SLICES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.where(SLICES % 2, 255, 0).astype(np.uint8)


def stack(path: Path, pages: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def volumes(root: Path) -> Path:
    stack(root / "train-volume.tif", SLICES)
    stack(root / "train-labels.tif", LABELS)
    stack(root / "test-volume.tif", SLICES[:2])
    return root


def test_read_isbi2012_stacks_give_known_train_ids(tmp_path: Path) -> None:
    source = open_data(volumes(tmp_path))
    assert source.format == "isbi2012"
    assert source.labels is not None
    assert source.labels.names == ("membrane", "cell interior")
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["train-00", "train-01", "train-02"],
        "test": ["test-00", "test-01"],
    }
    sample = SegmentationDataset(source.splits["train"], source.labels, in_channels=1)[1]
    assert sample.target is not None
    np.testing.assert_array_equal(sample.image[0].numpy(), SLICES[1])
    np.testing.assert_array_equal(sample.target.numpy(), SLICES[1] % 2)
    assert source.splits["test"][0].mask is None


def test_read_isbi2012_stack_without_test_says_so(tmp_path: Path) -> None:
    (volumes(tmp_path) / "test-volume.tif").unlink()
    source = read_isbi2012(tmp_path)
    assert list(source.splits) == ["train"]
    assert "test-volume.tif is not here" in source.notes[0]


def test_read_isbi2012_stacks_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    stack(volumes(tmp_path) / "train-labels.tif", LABELS[:2])
    with pytest.raises(DataError, match=r"train-volume\.tif has 3 pages and train-labels\.tif 2"):
        read_isbi2012(tmp_path)
    (tmp_path / "train-labels.tif").unlink()
    with pytest.raises(DataError, match=r"train-labels\.tif: the stack is not there\. ISBI 2012 has the stacks"):
        read_isbi2012(tmp_path)


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(LABELS[0]).save(root / name)


def test_read_isbi2012_files_per_slice_are_paired(tmp_path: Path) -> None:
    put(tmp_path, "train/image/0.png", "train/image/1.png", "train/label/0.png", "train/label/1.png")
    put(tmp_path, "test/0.png", "test/0_predict.png")
    source = read_isbi2012(tmp_path)
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["0", "1"],
        "test": ["0"],
    }
    assert "1 files in" in source.notes[0]
    assert "0_predict.png" in source.notes[0]


def test_read_isbi2012_two_folders_are_undivided_with_its_classes(tmp_path: Path) -> None:
    put(tmp_path, "image/0.png", "label/0.png")
    source = open_data(f"isbi2012:{tmp_path}")
    assert source.labels is not None
    assert source.labels.name == "isbi2012"
    assert [item.name for item in source.splits["all"]] == ["0"]
    assert open_data(tmp_path).format == "folder"  # nothing tells it from other data


@pytest.mark.data
@needs_isbi
def test_read_isbi2012_real_slices_hold_two_classes() -> None:
    source = read_isbi2012(DATA / "isbi2012")
    assert source.labels is not None
    assert len(source.splits["all"]) == 24
    target = SegmentationDataset(source.splits["all"], source.labels).read_target(0).pixels
    assert set(np.unique(target)) == {0, 1}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_page_grey_is_read_as_stored(tmp_path: Path, kind: Any) -> None:
    file = stack(tmp_path / "a.tif", SLICES.astype(kind) * 4, compression="tiff_lzw")
    page = pickle.loads(pickle.dumps(TiffPage(file, 2)))
    assert image_size(page) == (4, 5)
    np.testing.assert_array_equal(read_mask(page), SLICES[2].astype(kind) * 4)
    assert str(page) == f"{file}: page 2"
    assert count_pages(file) == 3


def test_tiff_page_bits_are_0_and_1_and_colours_stay(tmp_path: Path) -> None:
    file = stack(tmp_path / "a.tif", LABELS > 0)
    np.testing.assert_array_equal(read_mask(TiffPage(file, 1)), LABELS[1] > 0)
    colors = np.stack([SLICES, SLICES + 1, SLICES + 2], axis=3)
    np.testing.assert_array_equal(read_pixels(TiffPage(stack(tmp_path / "b.tif", colors), 1)), colors[1])


def test_tiff_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = stack(tmp_path / "a.tif", SLICES)
    with pytest.raises(DataError, match=r"a\.tif: page 3: there is no such page, the file holds 3"):
        read_mask(TiffPage(file, 3))


def test_tiff_page_fractions_are_refused(tmp_path: Path) -> None:
    file = stack(tmp_path / "a.tif", SLICES.astype(np.float32))
    with pytest.raises(DataError, match=r"page 0: pixels of mode F are not read"):
        read_mask(TiffPage(file, 0))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_tiff_page_of_no_tiff_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    Image.fromarray(SLICES[0]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a TIFF file"):
        count_pages(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"gone\.tif: there is no such file"):
        read_mask(TiffPage(tmp_path / "gone.tif", 0))
    whole = stack(tmp_path / "b.tif", SLICES).read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[:12])
    with pytest.raises(DamagedFile, match=r"b\.tif: cannot be read as a TIFF file, damaged or cut short"):
        read_mask(TiffPage(tmp_path / "b.tif", 0))


def test_read_isbi2012_other_folder_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ISBI 2012 data here\. ISBI 2012 has the stacks train-volume\.tif"):
        read_isbi2012(tmp_path)


def test_read_isbi2012_test_slices_leave_out_hidden_files_and_refuse_pipes(tmp_path: Path) -> None:
    for name in ("train/image/0.png", "train/label/0.png", "test/0.png", "test/._0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(LABELS[0]).save(tmp_path / name)
    assert [item.name for item in read_isbi2012(tmp_path).splits["test"]] == ["0"]
    os.mkfifo(tmp_path / "test/1.png")
    with pytest.raises(DataError, match=r"1\.png is no plain file"):
        read_isbi2012(tmp_path)
