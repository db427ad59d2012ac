"""Any data as a folder: read again it is the same, nothing is overwritten, and failures leave nothing behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from drawn_fakes import box_shape, drawing, put_image
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from perpixel.data import Item, SegmentationDataset, open_data
from perpixel.data.annotations.convert import split_items, write_folder
from perpixel.data.annotations.painting import DrawnMask
from perpixel.data.annotations.writing import file_name, label_text, new_folder, written_labels
from perpixel.data.formats.item import DataSource
from perpixel.data.picture import FileInside, Picture
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace, known_label_spaces

GAPS = LabelSpace(
    name="gaps",
    names=("road", "car, parked", "no"),
    colors=((9, 8, 7), (255, 0, 0), (0, 0, 255)),
    stored_to_train={7: 0, 26: 1, 255: 2, 0: 255, 4: 255},
    train_to_stored=(7, 26, 255),
    ignore_color=(1, 2, 3),
)


@dataclass(frozen=True)
class Page(Picture):
    file: Path
    pixels: int = 3

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> tuple[int, int]:
        return (8, 10)

    def read(self) -> NDArray[Any]:
        return np.full((8, 10, 3), self.pixels, np.uint16 if self.pixels > 255 else np.uint8)


@dataclass(frozen=True)
class Member(FileInside):
    file: Path

    @property
    def path(self) -> Path:
        return self.file

    @property
    def name(self) -> str:
        return "inside"

    def open(self, mode: str = "rb") -> IO[bytes]:
        return self.file.open("rb")


def put_mask(path: Path, ids: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def item(
    folder: Path, name: str = "a", *, size: tuple[int, int] = (8, 10), orientation: int = 1, ids: Any = (0, 7, 26, 255)
) -> Item:
    image = put_image(folder / f"{name}.jpg", size, orientation=orientation)
    stored = np.random.default_rng(len(name)).choice(np.array(ids, np.uint8), size)
    return Item(name=name, image=image, mask=put_mask(folder / "m" / f"{name}.png", stored))


def source_of(*items: Item, split: str = "all", **more: tuple[Item, ...]) -> DataSource:
    return DataSource(format="list", root=Path("root"), splits={split: items, **more}, labels=GAPS)


def targets(source: DataSource, labels: LabelSpace) -> dict[tuple[str, str], list]:
    return {
        (split, one.name): SegmentationDataset([one], labels)[0].target.tolist()
        for split, items in source.splits.items()
        for one in items
    }


def test_write_folder_is_read_again_with_the_same_classes(tmp_path: Path) -> None:
    source = source_of(item(tmp_path / "in"), item(tmp_path / "in", "bb"))
    done = write_folder(source, GAPS, tmp_path / "out")
    again = open_data(tmp_path / "out")
    assert (again.format, again.labels.names, again.labels.name) == ("folder", GAPS.names, "gaps")
    assert targets(again, again.labels) == targets(source, GAPS)
    with Image.open(tmp_path / "out" / "masks" / "a.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[3 * 26 : 3 * 27] == [255, 0, 0]
    assert done.images == {"all": 2}
    assert sum(done.pixels) == 160
    assert done.images_with == (2, 2, 2, 2)


def test_write_folder_splits_become_folders_and_others_are_named(tmp_path: Path) -> None:
    train, val = item(tmp_path / "in"), item(tmp_path / "in", "bb")
    bare = Item(name="c", image=put_image(tmp_path / "c.png"), mask=None)
    source = source_of(train, split="train", val=(val, bare), trainval=(train, val), test=(bare,))
    done = write_folder(source, GAPS, tmp_path / "out")
    again = open_data(tmp_path / "out")
    assert {split: [one.name for one in items] for split, items in again.splits.items()} == {
        "train": ["a"],
        "val": ["bb"],
    }
    assert "splits trainval were left out" in " ".join(done.notes)
    assert "split 'val': 1 images without a mask were left out: c" in " ".join(done.notes)
    assert "split 'test': 1 images" in " ".join(done.notes)


def test_write_folder_one_odd_split_is_undivided(tmp_path: Path) -> None:
    done = write_folder(source_of(item(tmp_path / "in"), split="trainval"), GAPS, tmp_path / "out")
    assert done.images == {"all": 1}


def test_write_folder_images_are_the_same_bytes_or_links(tmp_path: Path) -> None:
    source = source_of(item(tmp_path / "in"))
    original = source.splits["all"][0].image
    write_folder(source, GAPS, tmp_path / "copied")
    assert (tmp_path / "copied/images/a.jpg").read_bytes() == original.read_bytes()
    write_folder(source, GAPS, tmp_path / "linked", images="link")
    assert (tmp_path / "linked/images/a.jpg").readlink() == original
    assert targets(open_data(tmp_path / "linked"), GAPS) == targets(source, GAPS)


@pytest.mark.parametrize("split", ["all", "train"])
def test_write_folder_list_leaves_the_images_where_they_are(tmp_path: Path, split: str) -> None:
    source = source_of(item(tmp_path / "in"), split=split)
    write_folder(source, GAPS, tmp_path / "out", images="list")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([f"{split}.txt", "labels.yaml", "masks"])
    again = open_data(f"list:{tmp_path / 'out'}" if split == "train" else tmp_path / "out" / "all.txt")
    assert targets(again, again.labels) == targets(source, GAPS)


@pytest.mark.parametrize("placement", ["copy", "list"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 10), (9, 9)])
def test_write_folder_turned_photos_keep_their_labels(
    tmp_path: Path, size: tuple, orientation: int, placement: str
) -> None:
    source = source_of(item(tmp_path / "in", size=size, orientation=orientation))
    drawn = DrawnMask(
        drawing=drawing(box_shape("car", 0, 0, 3, 1), size=size), ids=(("car", 7),), rest=0
    )  # drawn on the stored pixels, as COCO's
    photo = source.splits["all"][0].image
    both = source_of(source.splits["all"][0], Item(name="drawn", image=photo, mask=drawn))
    if placement == "list":
        both = source  # one image twice would be no list
    write_folder(both, GAPS, tmp_path / "out", images=placement)
    again = open_data(tmp_path / "out" / "all.txt" if placement == "list" else tmp_path / "out")
    assert targets(again, again.labels) == targets(both, GAPS)


def test_write_folder_pictures_and_members_become_files(tmp_path: Path) -> None:
    mask = put_mask(tmp_path / "m.png", np.full((8, 10), 7, np.uint8))
    photo = put_image(tmp_path / "a.jpg")
    items = [Item(name="page", image=Page(photo), mask=mask), Item(name="member", image=Member(photo), mask=mask)]
    write_folder(source_of(*items), GAPS, tmp_path / "out", images="link")
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == ["member.jpg", "page.png"]
    assert (tmp_path / "out/images/member.jpg").read_bytes() == photo.read_bytes()
    with pytest.raises(DataError, match="2 images lie inside other files, which no list can name"):
        write_folder(source_of(*items), GAPS, tmp_path / "other", images="list")
    deep = Item(name="deep", image=Page(photo, 300), mask=mask)
    with pytest.raises(DataError, match="16-bit colour is not written"):
        write_folder(source_of(deep), GAPS, tmp_path / "other")


def test_write_folder_color_masks_become_ids(tmp_path: Path) -> None:
    rgb = np.array([[[9, 8, 7], [255, 0, 0]], [[1, 2, 3], [0, 0, 255]]], np.uint8)
    one = Item(name="a", image=put_image(tmp_path / "a.png", (2, 2)), mask=put_mask(tmp_path / "m.png", rgb))
    write_folder(source_of(one), GAPS, tmp_path / "out", colors=True)
    with Image.open(tmp_path / "out/masks/a.png") as picture:
        assert np.asarray(picture).tolist() == [[7, 26], [0, 255]]


def test_write_folder_overlaps_and_lost_shapes_are_told(tmp_path: Path) -> None:
    shapes = (
        box_shape("car", 0, 0, 4, 4),
        box_shape("bus", 2, 2, 8, 8),
        box_shape("bus", 1.6, 0, 2.4, 8, place="annotation 4"),
    )
    mask = DrawnMask(drawing=drawing(*shapes), ids=(("car", 7), ("bus", 26)), rest=0)
    done = write_folder(
        source_of(Item(name="a", image=put_image(tmp_path / "a.png"), mask=mask)), GAPS, tmp_path / "out"
    )
    assert done.overlapped == 4
    assert done.notes == (
        "1 shapes cover no pixel's centre, so no mask shows them: annotation 4 (a)",
        "shapes of different classes overlap on 4 pixels of 1 images, where the order decides (--order): a",
    )


def test_write_folder_progress_is_told(tmp_path: Path) -> None:
    told = []
    source = source_of(item(tmp_path / "in"), item(tmp_path / "in", "bb"))
    write_folder(source, GAPS, tmp_path / "out", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_write_folder_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = Item(
        name="b", image=put_image(tmp_path / "b.png"), mask=put_mask(tmp_path / "m.png", np.full((8, 10), 9, np.uint8))
    )
    with pytest.raises(DataError, match="ids outside label space 'gaps'"):
        write_folder(source_of(item(tmp_path / "in"), broken), GAPS, tmp_path / "to" / "out")
    assert list((tmp_path / "to").iterdir()) == []


def test_write_folder_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("out", "loop"):
        with pytest.raises(DataError, match=f"{name}: is there already and nothing is overwritten"):
            write_folder(source_of(item(tmp_path / "in")), GAPS, tmp_path / name)


def test_write_folder_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    image = put_image(tmp_path / "a.png")
    small = put_mask(tmp_path / "m.png", np.full((4, 5), 7, np.uint8))
    drawn = DrawnMask(drawing=drawing(size=(900_000, 900_000)), ids=(), rest=0)
    with pytest.raises(DataError, match=r"m.png: is for an image of 4 x 5 .*a.png has 8 x 10"):
        write_folder(source_of(Item(name="a", image=image, mask=small)), GAPS, tmp_path / "out")
    with pytest.raises(DataError, match="more than the limit"):
        write_folder(source_of(Item(name="a", image=image, mask=drawn)), GAPS, tmp_path / "out")
    drawn = DrawnMask(drawing=drawing(size=(900, 900)), ids=(), rest=0)
    with pytest.raises(DataError, match="is for an image of 900 x 900"):
        write_folder(source_of(Item(name="a", image=image, mask=drawn)), GAPS, tmp_path / "out")


def test_write_folder_unknown_placement_and_names_without_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="copy, link, list, got 'move'"):
        write_folder(source_of(item(tmp_path / "in")), GAPS, tmp_path / "out", images="move")
    with pytest.raises(DataError, match="names with tabs or line ends"):
        write_folder(source_of(item(tmp_path / "a\tb")), GAPS, tmp_path / "out", images="list")


def test_split_items_without_masks_or_with_equal_names_are_refused(tmp_path: Path) -> None:
    bare = Item(name="c", image=Path("c.png"), mask=None)
    with pytest.raises(DataError, match="no split with masks among test is one of train, val, test"):
        split_items(source_of(bare, split="test"))
    with pytest.raises(DataError, match="no split with masks among a, b"):
        split_items(source_of(bare, split="a", b=(bare,)))
    twins = [Item(name=name, image=Path("c.png"), mask=Path("m.png")) for name in ("x/y", "X__y")]
    with pytest.raises(DataError, match="differ only in / or in upper and lower case"):
        split_items(source_of(*twins))


def test_split_items_undivided_beside_other_splits_is_named(tmp_path: Path) -> None:
    one = Item(name="c", image=Path("c.png"), mask=Path("m.png"))
    chosen, notes = split_items(source_of(one, extra=(one,)))
    assert (list(chosen), len(notes)) == (["all"], 1)
    assert "splits extra were left out" in notes[0]
    chosen, notes = split_items(source_of(one, train=(one,)))
    assert list(chosen) == ["train"] and "splits all were left out" in notes[0]


@pytest.mark.parametrize("name", ["", ".hidden", "a\0b", "é" * 121])
def test_file_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="is no name for a file"):
        file_name(name)


def test_new_folder_in_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="out: cannot be made"), new_folder(tmp_path / "file" / "out"):
        pass
    with pytest.raises(DataError, match="out: cannot be written: disk full"), new_folder(tmp_path / "out"):
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_new_folder_has_the_permissions_of_any_folder(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with new_folder(tmp_path / "out") as folder:
        assert folder.name.startswith(".out.partial-")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", [*known_label_spaces(), 5, 255])
def test_written_labels_come_back_from_their_file(tmp_path: Path, name: str | int) -> None:
    labels = LabelSpace.load(name)
    written = written_labels(labels)
    (tmp_path / "labels.yaml").write_text(label_text(written), encoding="utf-8")
    assert LabelSpace.load(str(tmp_path / "labels.yaml")) == written
    train = np.arange(labels.num_classes + bool(labels.ignored_ids), dtype=np.uint8)
    if labels.ignored_ids:
        train[-1] = 255
    np.testing.assert_array_equal(written.encode(written.decode(train)), train)


ids = st.integers(0, 700)


@settings(max_examples=60, deadline=None)
@example({0: 0, 1: 0, 2: 255, 3: 255}, True)  # ids of its own that are the train ids
@given(st.dictionaries(ids, st.integers(0, 3) | st.just(255), min_size=4, max_size=9), st.booleans())
def test_written_labels_never_change_a_class(stored_to_train: dict[int, int], own: bool) -> None:
    used = sorted({train for train in stored_to_train.values() if train != 255})
    if used != list(range(len(used))) or not used:
        return
    first = tuple(min(s for s, t in stored_to_train.items() if t == train) for train in used)
    labels = LabelSpace(
        names=tuple(map(str, used)),
        colors=tuple((i, i, i) for i in used),
        stored_to_train=stored_to_train,
        train_to_stored=first if own else None,
    )
    written = written_labels(labels)
    train = np.array([*used, *([255] if labels.ignored_ids else [])], dtype=np.uint8)
    assert written.decode(train).dtype == np.uint8
    np.testing.assert_array_equal(written.encode(written.decode(train)), train)
