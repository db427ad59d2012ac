"""Stratified splits: deterministic, in proportion, and no class of two images missing on either side."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.data.source import Item
from perpixel.data.splits import load_split, make_split, save_split
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace


def make_items(count: int) -> list[Item]:
    return [Item(name=f"n{i}", image=Path(f"n{i}.jpg"), mask=Path(f"n{i}.png")) for i in range(count)]


def split_of(presence: np.ndarray, **options: object) -> np.ndarray:
    """Returns which images land in val, and checks that the parts make up the whole in order."""
    items = make_items(len(presence))
    parts = make_split(items, LabelSpace.numbered(presence.shape[1]), class_presence=presence, **options)
    in_val = np.array([item in parts["val"] for item in items])
    assert set(parts) == {"train", "val"}
    assert parts["train"] == tuple(item for item, val in zip(items, in_val, strict=True) if not val)
    assert parts["val"] == tuple(item for item, val in zip(items, in_val, strict=True) if val)
    return in_val


def covers(presence: np.ndarray, in_val: np.ndarray) -> bool:
    total, val = presence.sum(0), presence[in_val].sum(0)
    train_has_all = (val[total > 0] < total[total > 0]).all()
    return bool(train_has_all and (val[total > 1] > 0).all() and in_val.any() and not in_val.all())


presences = st.integers(2, 8).flatmap(
    lambda n: st.integers(1, 6).flatmap(
        lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=n, max_size=n).map(np.array)
    )
)


@settings(deadline=None, max_examples=40)
@given(presence=presences, seed=st.integers(0, 3), share=st.sampled_from([0.1, 0.3, 0.5]))
def test_make_split_covers_every_class_where_any_division_does(presence: np.ndarray, seed: int, share: float) -> None:
    possible = any(covers(presence, np.array(d)) for d in product([False, True], repeat=len(presence)))
    in_val = split_of(presence, seed=seed, val_share=share)
    assert covers(presence, in_val) == possible
    assert in_val.any()
    assert not in_val.all()


def test_make_split_impossible_wish_keeps_the_classes_in_train() -> None:
    # Three images, each two sharing a class of their own: two of them are always on one side.
    presence = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=bool)
    in_val = split_of(presence)
    assert in_val.sum() == 1


def test_make_split_proportions_are_kept_for_every_class() -> None:
    random = np.random.default_rng(5)
    presence = random.random((400, 6)) < np.array([0.9, 0.5, 0.3, 0.2, 0.1, 0.05])
    in_val = split_of(presence, val_share=0.25, seed=1)
    assert in_val.sum() == pytest.approx(100, abs=4)
    np.testing.assert_allclose(presence[in_val].sum(0), presence.sum(0) * 0.25, atol=4)


def test_make_split_rarest_class_of_two_images_is_shared() -> None:
    presence = np.zeros((50, 2), dtype=bool)
    presence[:, 0] = True
    presence[[7, 31], 1] = True
    for seed in range(5):
        in_val = split_of(presence, seed=seed)
        assert in_val[[7, 31]].sum() == 1


def test_make_split_same_seed_gives_the_same_split() -> None:
    presence = np.random.default_rng(0).random((60, 4)) < 0.4
    np.testing.assert_array_equal(split_of(presence, seed=3), split_of(presence, seed=3))
    assert (split_of(presence, seed=3) != split_of(presence, seed=4)).any()


def test_make_split_images_without_classes_are_divided_too() -> None:
    in_val = split_of(np.zeros((10, 2), dtype=bool), val_share=0.3)
    assert in_val.sum() == 3


def test_make_split_bad_arguments_raise() -> None:
    presence = np.ones((3, 2), dtype=bool)
    labels = LabelSpace.numbered(2)
    for share in (0, 1, -0.1):
        with pytest.raises(InvalidValue, match=f"val_share must lie between 0 and 1, got {share}"):
            make_split(make_items(3), labels, class_presence=presence, val_share=share)
    with pytest.raises(InvalidValue, match=r"class_presence has shape \(3, 2\), 4 images and 2 classes"):
        make_split(make_items(4), labels, class_presence=presence)
    with pytest.raises(DataError, match="1 image cannot be divided"):
        make_split(make_items(1), labels, class_presence=presence[:1])


def test_load_split_gives_back_what_was_saved(tmp_path: Path) -> None:
    items = make_items(6)
    parts = make_split(items, LabelSpace.numbered(1), class_presence=np.ones((6, 1), dtype=bool))
    save_split(tmp_path / "split.json", parts)
    assert load_split(tmp_path / "split.json", items[::-1]) == parts


def test_load_split_other_data_raises(tmp_path: Path) -> None:
    items = make_items(3)
    file = tmp_path / "split.json"
    save_split(file, {"train": items[:2], "val": items[2:]})
    with pytest.raises(DataError, match=r"1 images are not in the data: n2\..*remove the file"):
        load_split(file, items[:2])
    with pytest.raises(DataError, match="1 images are in no split: n3"):
        load_split(file, make_items(4))
    save_split(file, {"train": items, "val": items[2:]})
    with pytest.raises(DataError, match="1 images are in several splits: n2"):
        load_split(file, items)


@pytest.mark.parametrize("content", ["[]", '{"train": 3}', '{"train": [1]}'])
def test_load_split_foreign_file_raises(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match="a split file maps each split to a list of image names"):
        load_split(tmp_path / "split.json", [])
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a split"):
        load_split(tmp_path / "split.json", [])
    with pytest.raises(DataError, match="cannot be read as a split"):
        load_split(tmp_path / "gone.json", [])
