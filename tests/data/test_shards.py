"""Shards of tar files: keys and masks, splits, patterns, and batches that are those of the same files in folders."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.data import Augmentation, Batch, SegmentationDataset, TrainBatches, open_data
from perpixel.data.formats.shards import braces, read_shards
from perpixel.errors import DataError
from perpixel.labels import LabelSpace


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(seed: int) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
    return png(image), png(rng.integers(0, 3, (12, 14), dtype=np.uint8))


def shard(path: Path, names: list[str]) -> Path:
    """Writes members by name: masks and images of a key belong together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            key, _, kind = name.partition(".")
            image, mask = pixels(sum(key.encode()))
            image_or_mask = mask if kind.rpartition(".")[0] in ("mask", "seg", "label") else image
            info = tarfile.TarInfo(name)
            content = image_or_mask if kind.endswith("png") else b"{}"
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def three(root: Path) -> Path:
    for number in range(3):
        shard(root / f"train-{number:06d}.tar", [f"{number}{i}.{kind}" for i in "abcd" for kind in ("png", "seg.png")])
    shard(root / "val-000000.tar", ["va.png", "va.seg.png"])
    (root / "labels.yaml").write_text("names: [x, y, z]")
    return root


def names(source: object, split: str) -> list[str]:
    return [item.name for item in source.splits[split]]  # type: ignore[attr-defined]


def test_read_shards_folder_gives_splits_by_name(tmp_path: Path) -> None:
    source = open_data(three(tmp_path))
    assert source.format == "shards"
    assert {split: len(items) for split, items in source.splits.items()} == {"train": 12, "val": 1}
    assert names(source, "train")[:5] == ["0a", "0b", "0c", "0d", "1a"]
    assert source.labels is not None
    assert source.labels.names == ("x", "y", "z")
    assert "13 images lie in 4 shards" in source.notes[-1]


def as_folder(root: Path, out: Path) -> Path:
    """The plain twin: the same files unpacked."""
    for file in sorted(root.glob("train-*.tar")):
        with tarfile.open(file) as tar:
            for info in tar:
                key, _, kind = info.name.partition(".")
                folder = out / ("masks" if kind == "seg.png" else "images")
                folder.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(info)
                assert content is not None
                (folder / f"{key}.png").write_bytes(content.read())
    return out


def batches(data: Path, split: str, *, start: int = 0, workers: int = 0) -> list[Batch]:
    dataset = SegmentationDataset(open_data(data).splits[split], LabelSpace.numbered(3))
    augmentation = Augmentation(crop_size=(8, 8), scale_range=(0.5, 2.0), flip=True, brightness=0.2)
    return list(
        TrainBatches(
            dataset,
            augmentation,
            batch_size=5,
            steps=9,
            seed=4,
            start_step=start,
            workers=workers,
            pad_value=(0.0,) * 3,
        )
    )


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.names == other.names
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_train_batches_over_shards_equal_those_over_the_same_files_in_folders(tmp_path: Path) -> None:
    plain = as_folder(three(tmp_path / "shards"), tmp_path / "folder")
    assert_same(batches(tmp_path / "shards", "train"), batches(plain, "all"))


@pytest.mark.parametrize("workers", [0, 2])
def test_train_batches_over_shards_go_on_after_a_restart_where_they_were(tmp_path: Path, workers: int) -> None:
    three(tmp_path)
    whole = batches(tmp_path, "train")
    assert_same(batches(tmp_path, "train", start=4, workers=workers), whole[4:])


@pytest.mark.parametrize("kind", ["mask", "seg", "label", "labels", "target", "gt"])
def test_read_shards_mask_words_are_known(tmp_path: Path, kind: str) -> None:
    shard(tmp_path / "x.tar", [f"a.{kind}.png", "a.jpg", "a.json", "a.depth.png", f"d/b.{kind}.PNG", "d/b.image.png"])
    source = open_data(tmp_path / "x.tar")
    assert names(source, "all") == ["a", "d__b"]
    assert source.splits["all"][1].mask.name == f"d/b.{kind}.PNG"  # type: ignore[union-attr]
    assert "members that are neither image nor mask were left out: 1 .depth.png, 1 .json" in source.notes[0]


def test_read_shards_folders_of_splits_are_followed(tmp_path: Path) -> None:
    shard(tmp_path / "train/000.tar", ["a.png", "a.mask.png"])
    shard(tmp_path / "validation/000.tar", ["b.png", "b.mask.png"])
    shard(tmp_path / "test/000.tar", ["c.png"])
    source = open_data(tmp_path)
    assert {split: names(source, split) for split in source.splits} == {"train": ["a"], "val": ["b"], "test": ["c"]}
    assert source.splits["test"][0].mask is None
    assert "the 1 images of split 'test' have no masks" in source.notes[1]


def test_read_shards_pattern_with_braces_takes_those_shards(tmp_path: Path) -> None:
    three(tmp_path)
    source = open_data(f"shards:{tmp_path}/train-{{000000..000001}}.tar")
    assert names(source, "train") == ["0a", "0b", "0c", "0d", "1a", "1b", "1c", "1d"]
    with pytest.raises(DataError, match=r"1 of 4 shards are not there: .*train-000003\.tar"):
        open_data(f"shards:{tmp_path}/train-{{000000..000003}}.tar")
    with pytest.raises(DataError, match=r"the pattern names shards twice: .*train-000000\.tar"):
        open_data(f"shards:{tmp_path}/train-{{000000,000000}}.tar")


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("a", ["a"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("x{a,b}{0..1}", ["xa0", "xa1", "xb0", "xb1"]),
    ],
)
def test_braces_are_written_out(pattern: str, written: list[str]) -> None:
    assert braces(pattern) == written


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..9", "the braces do not match"),
        ("{a{b}}", "the braces do not match"),
        ("{9..0}", "must run upwards over at most 100000"),
        ("{0..99999999999}", "must run upwards over at most 100000"),
        ("{a..c}", "{a..c} is no range"),
        ("{0..999}{0..999}", "the braces stand for 1000000 names, more than 100000"),
    ],
)
def test_braces_that_are_not_understood_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        braces(pattern)


def test_read_shards_keys_that_repeat_get_the_name_of_their_shard(tmp_path: Path) -> None:
    shard(tmp_path / "s0.tar", ["a.png", "a.seg.png"])
    shard(tmp_path / "s1.tar", ["a.png", "a.seg.png"])
    source = read_shards(tmp_path)
    assert names(source, "all") == ["s0__a", "s1__a"]
    assert "keys repeat" in source.notes[0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.png", "a.jpg", "a.seg.png"], r"'a\.png' and 'a\.jpg' are two images of the key 'a'"),
        (["a.png", "a.seg.png", "a.mask.png"], r"'a\.seg\.png' and 'a\.mask\.png' are two masks of the key 'a'"),
        (["a.png", "b.png", "a.seg.png"], r"split 'all': 1 of 2 images have no mask of their key: s\.tar: b"),
        (["a.png", "a.seg.png", "b.seg.png"], r"1 masks have no image of their key: b\.seg\.png"),
        (["a.seg.png", "a.txt"], r"there is no image in this shard\. Shards are \.tar files"),
        (["x/a.png", "x/a.seg.png", "x__a.png", "x__a.seg.png"], r"1 images have one name: s__x__a; rename the keys"),
    ],
)
def test_read_shards_keys_that_are_not_complete_are_named(tmp_path: Path, members: list[str], message: str) -> None:
    shard(tmp_path / "s.tar", members)
    with pytest.raises(DataError, match=message):
        read_shards(tmp_path)


def test_read_shards_that_seem_to_be_missing_are_said(tmp_path: Path) -> None:
    three(tmp_path)
    (tmp_path / "train-000001.tar").rename(tmp_path / "train-000007.tar")
    (tmp_path / "train-000004.tar.gz").write_bytes(b"")
    notes = open_data(tmp_path).notes
    assert f"5 shards seem to be missing from {tmp_path}/train-*.tar, by their numbers" in notes
    assert "1 compressed archives were left out, unpack them to .tar: train-000004.tar.gz" in notes
    shard(tmp_path / "of/x-00000-of-00003.tar", ["a.png", "a.seg.png"])
    assert "2 shards seem to be missing" in " ".join(open_data(tmp_path / "of").notes)


def test_read_shards_names_of_splits_and_others_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", ["a.png", "a.seg.png"])
    shard(tmp_path / "part-1.tar", ["b.png", "b.seg.png"])
    with pytest.raises(DataError, match=r"part-1\.tar are named after no split and others are"):
        read_shards(tmp_path)


def test_read_shards_folder_without_any_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.tar files here or in train/, val/, test/\. Shards are \.tar files"):
        read_shards(tmp_path)
    with pytest.raises(DataError, match=r"1 of 1 shards are not there: .*gone"):
        open_data(f"shards:{tmp_path / 'gone'}")


def test_open_data_archives_beside_a_data_set_are_not_its_data(tmp_path: Path) -> None:
    shard(tmp_path / "download.tar", ["a.png", "a.seg.png"])
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(pixels(0)[1])
    assert open_data(tmp_path).format == "folder"
