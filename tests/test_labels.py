"""LabelSpace: ids, colours and files; what does not fit is named with its place and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.errors import ConfigError, DataError, InvalidValue
from perpixel.labels import LabelSpace, known_label_spaces

KNOWN = sorted(known_label_spaces())
REPEATED_COLORS = {"ade20k150": 1, "cocostuff10k": 9, "cocostuff164k": 9} | dict.fromkeys(
    ("pascal_context59", "pascal_context60", "pascal_context59_official", "pascal_context60_official"), 1
)
"""Colours that the published palettes give to a second class."""


def space(**changes: Any) -> LabelSpace:
    values: dict[str, Any] = {
        "names": ("road", "car"),
        "colors": ((128, 64, 128), (0, 0, 142)),
        "stored_to_train": {7: 0, 26: 1, 0: 255},
        "train_to_stored": (7, 26),
        "name": "streets",
    }
    return LabelSpace(**{**values, **changes})


@st.composite
def spaces(draw: st.DrawFn, largest_id: int = 65535) -> LabelSpace:
    count = draw(st.integers(1, 12))
    ids = draw(st.lists(st.integers(0, largest_id), min_size=count + 1, max_size=count + 4, unique=True))
    mapping = {stored: train for train, stored in enumerate(ids[:count])} | dict.fromkeys(ids[count:], 255)
    return LabelSpace(
        names=tuple(f"c{i}" for i in range(count)),
        colors=LabelSpace.numbered(count).colors,
        stored_to_train=mapping,
        train_to_stored=tuple(ids[:count]),
    )


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


# Construction


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": (), "colors": ()}, "1 to 255 classes, got 0"),
        ({"names": ("a", "a")}, "class names must differ, repeated: a"),
        ({"colors": ((1, 2, 3),)}, "2 class names but 1 colours"),
        ({"colors": ((1, 2, 3), (0, 0, 256))}, r"\[0, 255\], got \(0, 0, 256\)"),
        ({"ignore_color": (0.5, 0, 0)}, r"whole numbers .* got \(0\.5, 0, 0\)"),
        ({"stored_to_train": {70000: 0}}, "stored id 70000 is outside"),
        ({"stored_to_train": {-1: 0}}, "stored id -1 is outside"),
        ({"stored_to_train": {3: 2}}, "stored id 3 leads to class 2; there are 2 classes"),
        ({"train_to_stored": (7,)}, "train_to_stored has 1 ids for 2 classes"),
    ],
)
def test_label_space_wrong_field_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        space(**changes)


def test_label_space_256_classes_are_refused() -> None:
    with pytest.raises(InvalidValue, match="1 to 255 classes, got 256"):
        LabelSpace.numbered(256)


def test_label_space_says_what_is_ignored() -> None:
    labels = space(stored_to_train={7: 0, 26: 1, 4: 255, 0: 255})
    assert labels.num_classes == 2
    assert labels.ignored_ids == (0, 4)
    assert labels.ignore_index == 255


# Ids


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_encode_after_decode_returns_the_train_ids(data: st.DataObject) -> None:
    labels = data.draw(spaces())
    train = np.array(
        data.draw(st.lists(st.sampled_from([*range(labels.num_classes), 255]), min_size=6, max_size=6)), np.uint8
    ).reshape(2, 3)
    stored = labels.decode(train)
    assert stored.dtype == (np.uint16 if max(*labels.train_to_stored, labels.ignored_ids[0]) > 255 else np.uint8)
    assert np.array_equal(labels.encode(stored), train)


@settings(deadline=None, max_examples=50)
@given(spaces(), st.integers(0, 65535))
def test_encode_follows_the_mapping_or_refuses(labels: LabelSpace, stored: int) -> None:
    mask = np.full((2, 2), stored, np.uint16)
    if stored in labels.stored_to_train:
        assert (labels.encode(mask) == labels.stored_to_train[stored]).all()
    else:
        with pytest.raises(DataError, match=f"{stored} on 4 pixels"):
            labels.encode(mask)


@settings(deadline=None, max_examples=30)
@given(spaces())
def test_to_dict_and_from_dict_are_inverse(labels: LabelSpace) -> None:
    again = LabelSpace.from_dict(yaml.safe_load(yaml.safe_dump(labels.to_dict())))
    assert again == labels
    assert again.to_dict() == labels.to_dict()


def test_encode_unknown_ids_names_file_value_pixel_and_count() -> None:
    mask = np.full((4, 6), 7, np.uint8)
    mask[1, 2:5] = 99
    mask[3, 5] = 41
    with pytest.raises(DataError) as caught:
        space().encode(mask, source="masks/a.png")
    message = str(caught.value)
    assert message.startswith("masks/a.png: ids outside label space 'streets' (2 classes")
    assert "99 on 3 pixels (first at row 1, column 2)" in message
    assert "41 on 1 pixels (first at row 3, column 5)" in message
    assert "give a label file that maps these ids or ignores them" in message


def test_encode_many_unknown_ids_are_counted() -> None:
    with pytest.raises(DataError, match="and 4 more"):
        LabelSpace.numbered(3).encode(np.arange(100, 112, dtype=np.uint8)[None])


def test_encode_0_and_255_with_two_given_classes_gets_a_hint() -> None:
    labels = LabelSpace(names=("a", "b"), colors=((0, 0, 0), (1, 1, 1)), stored_to_train={0: 0, 1: 1})
    with pytest.raises(DataError, match="holds only 0 and 255: leave --labels away"):
        labels.encode(np.array([[0, 255]], np.uint8))


def test_encode_empty_mask_stays_empty() -> None:
    assert space().encode(np.zeros((0, 5), np.uint8)).shape == (0, 5)


def test_decode_without_stored_ids_writes_train_ids_and_255() -> None:
    assert LabelSpace.numbered(3).decode(np.array([[0, 2, 255]])).tolist() == [[0, 2, 255]]


# Colours


def test_palette_puts_each_colour_at_its_stored_id() -> None:
    palette = np.array(space(ignore_color=(9, 8, 7)).palette()).reshape(256, 3)
    assert palette[7].tolist() == [128, 64, 128]
    assert palette[26].tolist() == [0, 0, 142]
    assert palette[0].tolist() == palette[255].tolist() == [9, 8, 7]
    assert not palette[[1, 6, 8, 25, 27, 254]].any()


def test_palette_leaves_out_ids_over_255() -> None:
    labels = space(stored_to_train={700: 0, 26: 1, 0: 255}, train_to_stored=(700, 26))
    palette = np.array(labels.palette()).reshape(256, 3)
    assert palette[26].tolist() == [0, 0, 142]
    assert np.flatnonzero(palette.any(axis=1)).tolist() == [26]


@settings(deadline=None, max_examples=30)
@given(spaces(), st.integers(0, 2**31))
def test_encode_colors_after_colorize_returns_the_train_ids(labels: LabelSpace, seed: int) -> None:
    choices = np.array([*range(labels.num_classes), 255], np.uint8)
    train = np.random.default_rng(seed).choice(choices, (3, 4))
    assert np.array_equal(labels.encode_colors(labels.colorize(train)), train)


def test_encode_colors_unknown_colour_names_file_colour_and_count() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, :2] = (5, 6, 7)
    with pytest.raises(DataError, match=r"m\.png: 1 colours belong to no class .*: \(5, 6, 7\) on 2 pixels\. Add them"):
        space().encode_colors(picture, source="m.png")


def test_encode_colors_repeated_colours_are_refused() -> None:
    labels = space(colors=((1, 1, 1), (1, 1, 1)))
    with pytest.raises(DataError, match="'streets' repeats colours"):
        labels.encode_colors(np.ones((1, 1, 3), np.uint8))


@pytest.mark.parametrize("count", [1, 2, 19, 254, 255])
def test_numbered_default_colours_differ(count: int) -> None:
    labels = LabelSpace.numbered(count)
    assert labels.num_classes == len(set(labels.colors)) == count
    assert labels.ignored_ids == (255,)


# Known spaces


@pytest.mark.parametrize("name", KNOWN)
def test_known_space_is_complete_and_writes_back_what_it_reads(name: str) -> None:
    labels = LabelSpace.load(name)
    assert labels.name == name
    assert len(set(labels.colors)) == labels.num_classes - REPEATED_COLORS.get(name, 0)
    stored = np.array([sorted(labels.stored_to_train)], np.uint16)
    train = labels.encode(stored)
    assert set(train.ravel().tolist()) - {255} == set(range(labels.num_classes))
    kept = train != 255
    if len(labels.stored_to_train) - len(labels.ignored_ids) == labels.num_classes:
        assert np.array_equal(labels.decode(train)[kept], stored[kept])
    else:  # several stored ids make one class, so train ids are written
        assert np.array_equal(labels.decode(train)[kept], train[kept])


def test_known_camvid11_of_32_groups_classes_and_ignores_void() -> None:
    fine, grouped = LabelSpace.load("camvid32"), LabelSpace.load("camvid11_of_32")
    ids = {name: fine.train_to_stored[k] for k, name in enumerate(fine.names)} if fine.train_to_stored else {}
    for name, group in (("Archway", "Building"), ("Truck_Bus", "Car"), ("Child", "Pedestrian"), ("Road", "Road")):
        assert grouped.names[int(grouped.encode(np.array([[ids[name]]], np.uint8))[0, 0])] == group
    assert grouped.names == LabelSpace.load("camvid11").names
    assert grouped.ignored_ids == fine.ignored_ids
    assert fine.num_classes == 31


def test_known_pascal_context_spaces_share_names_in_two_orders() -> None:
    by_name, official = LabelSpace.load("pascal_context59"), LabelSpace.load("pascal_context59_official")
    assert set(by_name.names) == set(official.names)
    assert by_name.names[54] == "tvmonitor"  # stored as 55
    assert official.names[:4] == ("aeroplane", "bicycle", "bird", "boat")


def test_known_camvid11_ignores_11() -> None:
    labels = LabelSpace.load("camvid11")
    assert labels.num_classes == 11
    assert labels.ignored_ids == (11,)
    assert labels.names[0] == "Sky"
    assert labels.names[-1] == "Bicyclist"
    assert labels.encode(np.array([[0, 10, 11]], np.uint8)).tolist() == [[0, 10, 255]]
    with pytest.raises(DataError, match="12 on 1 pixels"):
        labels.encode(np.array([[12]], np.uint8))


def test_known_voc_ignores_255() -> None:
    labels = LabelSpace.load("voc")
    assert labels.num_classes == 21
    assert labels.ignored_ids == (255,)
    assert labels.names[0] == "background"
    assert labels.names[15] == "person"
    assert labels.colors[15] == (192, 128, 128)
    assert labels.ignore_color == (224, 224, 192)


def test_known_cityscapes_reads_and_writes_label_ids() -> None:
    labels = LabelSpace.load("cityscapes")
    assert labels.num_classes == 19
    assert labels.train_to_stored == (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    assert labels.encode(np.array([[7, 26, 33, 0, 29]], np.uint8)).tolist() == [[0, 13, 18, 255, 255]]
    assert labels.decode(np.array([[0, 13, 18]])).tolist() == [[7, 26, 33]]
    assert labels.names == LabelSpace.load("cityscapes_train_ids").names


def test_known_isbi2012_has_foreground_at_255() -> None:
    labels = LabelSpace.load("isbi2012")
    assert labels.encode(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]
    assert labels.decode(np.array([[0, 1]])).tolist() == [[0, 255]]


# Loading


@pytest.mark.parametrize("spec", [4, "4"])
def test_load_number_gives_unnamed_classes(spec: str | int) -> None:
    labels = LabelSpace.load(spec)
    assert labels.names == ("class 0", "class 1", "class 2", "class 3")
    assert labels.train_to_stored is None


def test_load_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no label space 'camvid1'; did you mean 'camvid11'\?.*YAML file"):
        LabelSpace.load("camvid1")


def test_load_file_with_names_alone_stores_0_to_k(tmp_path: Path) -> None:
    labels = LabelSpace.load(write(tmp_path / "pets.yaml", {"names": ["cat", "dog"]}))
    assert labels.name == "pets"
    assert labels.stored_to_train == {0: 0, 1: 1, 255: 255}
    assert labels.train_to_stored is None
    assert len(set(labels.colors)) == 2


def test_load_file_with_one_stored_id_per_class(tmp_path: Path) -> None:
    content = {
        "name": "my streets",
        "names": ["road", "car"],
        "colors": [[1, 2, 3], [4, 5, 6]],
        "stored": [7, 300],
        "ignore": [0, 9],
        "ignore_color": [9, 9, 9],
    }
    labels = LabelSpace.load(write(tmp_path / "a.yaml", content))
    assert labels.name == "my streets"
    assert labels.colors == ((1, 2, 3), (4, 5, 6))
    assert labels.stored_to_train == {7: 0, 300: 1, 0: 255, 9: 255}
    assert labels.train_to_stored == (7, 300)
    assert labels.ignore_color == (9, 9, 9)
    assert labels.decode(np.array([1])).dtype == np.uint16


def test_load_file_with_stored_mapping_one_id_each_writes_them_back(tmp_path: Path) -> None:
    labels = LabelSpace.load(write(tmp_path / "a.yaml", {"names": ["a", "b"], "stored": {5: "b", 3: "a"}}))
    assert labels.stored_to_train == {5: 1, 3: 0, 255: 255}
    assert labels.train_to_stored == (3, 5)


def test_load_file_with_several_ids_per_class_writes_train_ids(tmp_path: Path) -> None:
    labels = LabelSpace.load(write(tmp_path / "a.yaml", {"names": ["a", "b"], "stored": {5: "b", 6: "b", 3: "a"}}))
    assert labels.encode(np.array([[3, 5, 6, 255]], np.uint8)).tolist() == [[0, 1, 1, 255]]
    assert labels.train_to_stored is None


def test_load_file_that_ignores_nothing_refuses_255(tmp_path: Path) -> None:
    labels = LabelSpace.load(write(tmp_path / "a.yaml", {"names": ["a", "b"], "ignore": []}))
    with pytest.raises(DataError, match="255 on 1 pixels"):
        labels.encode(np.array([[255]], np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": ["a"], "colours": []}, r"unknown key 'colours'; did you mean 'colors'\?"),
        ({"names": []}, r"'names' must list at least one class name, got \[\]"),
        ({"name": "x"}, "'names' must list at least one class name, got None"),
        ({"names": "a b"}, "'names' must list at least one class name, got 'a b'"),
        ({"names": ["a", "a"]}, "class names must differ, repeated: a"),
        ({"names": ["a", "b"], "stored": [1]}, r"'stored' needs one different id for each of the 2 names, got \[1\]"),
        ({"names": ["a", "b"], "stored": [1, 1]}, r"'stored' needs one different id .* got \[1, 1\]"),
        ({"names": ["a"], "stored": {1: "c"}}, "'stored' leads to class 'c', which 'names' does not list"),
        ({"names": ["a"], "stored": [70000]}, "stored id 70000 is outside"),
        ({"names": ["a"], "colors": [[1, 2]]}, r"a colour is three whole numbers in \[0, 255\], got \[1, 2\]"),
        ({"names": ["a"], "colors": "red"}, "'colors' lists one colour per class, got 'red'"),
        ({"names": ["a"], "colors": [[1, 2, 3.5]]}, "'a colour' takes whole numbers, got 3.5"),
        ({"names": ["a"], "ignore_color": 3}, r"a colour is three whole numbers in \[0, 255\], got 3"),
        ({"names": ["a", None]}, "'names' holds None, which is no name; put quotes"),
        ({"names": ["a", False]}, "'names' holds False, which is no name"),
        ({"names": ["a", " "]}, "'names' holds ' ', which is no name"),
        ({"names": ["a", "b"], "stored": [1, 1.5]}, "'stored' takes whole numbers, got 1.5"),
        ({"names": ["a", "b"], "stored": [[0], [1]]}, r"'stored' takes whole numbers, got \[0\]"),
        ({"names": ["a"], "stored": {0.9: "a"}}, "'stored' takes whole numbers, got 0.9"),
        ({"names": ["a"], "ignore": [2.5]}, "'ignore' takes whole numbers, got 2.5"),
        ("names: [a]\nnames: [b]\n", "the key 'names' stands twice"),
        ("names: [a]\nstored: {1: a, 1: a}\n", "the key '1' stands twice"),
        ({"names": ["a"], "colors": [[1, 2, 300]]}, r"got \(1, 2, 300\)"),
        ({"names": ["a"], "ignore": ["void"]}, "'void'"),
        (["a", "b"], "a label file is a mapping with the key 'names', got list"),
        ("names: [a, b", "not a YAML file"),
    ],
)
def test_load_file_with_a_mistake_names_the_file(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path / "bad.yaml", content)
    with pytest.raises(ConfigError, match=message) as caught:
        LabelSpace.load(path)
    assert str(caught.value).startswith(path)


def test_load_missing_file_or_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no label space '.*pets\.yaml' \(there is no such file\)"):
        LabelSpace.load(str(tmp_path / "pets.yaml"))
    with pytest.raises(ConfigError, match=r"no label space '.*' \(is a folder\)"):
        LabelSpace.load(str(tmp_path))


def test_load_json_file_with_stored_mapping_reads_its_keys_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"names": ["a", "b"], "stored": {"3": "a", "5": "b"}}', encoding="utf-8")
    assert LabelSpace.load(str(path)).train_to_stored == (3, 5)


def test_load_file_that_cannot_be_opened_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.yaml", {"names": ["a"]})

    plain = Path.read_text

    def denied(self: Path, encoding: str) -> str:
        if str(self) == path:
            raise PermissionError(13, "Permission denied")
        return plain(self, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: Permission denied"):
        LabelSpace.load(path)


def test_load_file_that_is_no_text_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not a YAML file"):
        LabelSpace.load(str(path))
