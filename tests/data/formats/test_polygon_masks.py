"""Cityscapes' polygons: drawn as Pillow draws them, in the order of the file; files of another shape are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpixel.data.annotations.rasterise import fill_polygon
from perpixel.data.formats.polygon_masks import CITYSCAPES_IDS, CityscapesPolygons
from perpixel.errors import DataError

ROAD = [[0, 4], [9, 4], [9, 7], [0, 7]]
CAR = [[2, 3], [5, 3], [5, 6], [2, 6]]


def put(path: Path, *objects: Any, **changes: Any) -> CityscapesPolygons:
    content = {"imgHeight": 8, "imgWidth": 10, "objects": list(objects)} | changes
    path.write_text(json.dumps(content))
    return CityscapesPolygons(path)


def thing(label: str, polygon: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": label, "polygon": polygon, **more}


def drawn(*shapes: tuple[int, list[list[float]]]) -> np.ndarray:
    ids = np.zeros((8, 10), np.uint8)
    for value, polygon in shapes:
        fill_polygon(ids, polygon, value, rule="pil")
    return ids


def test_polygons_later_objects_cover_earlier_ones(tmp_path: Path) -> None:
    mask = put(tmp_path / "a.json", thing("road", ROAD), thing("car", CAR))
    ids = mask.read()
    assert (mask.size(), ids.dtype, str(mask), mask.path) == ((8, 10), np.uint8, str(tmp_path / "a.json"), mask.file)
    np.testing.assert_array_equal(ids, drawn((7, ROAD), (26, CAR)))
    assert (ids[0, 0], ids[5, 0], ids[5, 3]) == (0, 7, 26)
    np.testing.assert_array_equal(
        put(tmp_path / "b.json", thing("car", CAR), thing("road", ROAD)).read(), drawn((26, CAR), (7, ROAD))
    )


def test_polygons_groups_deleted_and_negative_ids(tmp_path: Path) -> None:
    mask = put(
        tmp_path / "a.json",
        thing("cargroup", CAR),
        thing("road", ROAD, deleted=1),
        thing("license plate", ROAD),
        thing("polegroup", [[8, 0], [9, 0], [9, 1]]),
    )
    np.testing.assert_array_equal(mask.read(), drawn((26, CAR), (18, [[8, 0], [9, 0], [9, 1]])))


def test_polygons_beyond_the_image_are_cut_off(tmp_path: Path) -> None:
    outside = [[-5, -5], [40, -5], [40, 3.7], [-5, 3.7]]
    np.testing.assert_array_equal(put(tmp_path / "a.json", thing("sky", outside)).read(), drawn((23, outside)))


def test_polygons_changed_file_is_read_again(tmp_path: Path) -> None:

    mask = put(tmp_path / "a.json", thing("road", ROAD))
    assert mask.size() == (8, 10)
    put(tmp_path / "a.json", imgHeight=3)
    os.utime(tmp_path / "a.json", ns=(1, 1))
    assert mask.size() == (3, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be a mapping with imgHeight"),
        (
            {"imgWidth": 10, "imgHeight": True, "objects": []},
            "imgHeight must be a whole number from 1 to 65536, got True",
        ),
        ({"imgWidth": -1, "imgHeight": 8, "objects": []}, "imgWidth must be a whole number.*got -1"),
        ({"imgWidth": 10, "imgHeight": 8}, "'objects' must be a list of polygons, got NoneType"),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [3]}, "object 0 must be a mapping, got int"),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "caar", "polygon": ROAD}]}, "did you mean 'car'"),
        (
            {"imgWidth": 10, "imgHeight": 8, "objects": [{"label": None, "polygon": ROAD}]},
            "object 0 has the label None",
        ),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[1, 2]]}]}, "two or more points"),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "car", "polygon": "x"}]}, "two or more points"),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[1, 2], [3]]}]}, r"got \[3\]"),
        ({"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[1, 2], [3, "4"]]}]}, "got .3, '4'"),
        (
            {"imgWidth": 10, "imgHeight": 8, "objects": [{"label": "car", "polygon": [[1, 2], [3, 1e9]]}]},
            "got .3, 1000",
        ),
    ],
)
def test_polygons_files_of_another_shape_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"a\.json: .*{message}"):
        CityscapesPolygons(tmp_path / "a.json").read()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"imgHeight": NaN}', "\xff"])
def test_polygons_damaged_and_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.json: (cannot be read as JSON|imgHeight must be)"):
        CityscapesPolygons(tmp_path / "a.json").size()


def test_polygons_missing_and_enormous_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"a\.json: cannot be read"):
        CityscapesPolygons(tmp_path / "a.json").size()
    mask = put(tmp_path / "b.json")
    monkeypatch.setattr("perpixel.data.formats.polygon_masks._LARGEST_FILE", 10)
    with pytest.raises(DataError, match=r"b\.json: .* bytes are more than the polygons of any image \(10\)"):
        mask.size()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CITYSCAPES_IDS)),
            st.lists(st.tuples(st.integers(-4, 14), st.integers(-4, 12)), min_size=3, max_size=6),
        ),
        max_size=4,
    )
)
def test_polygons_hold_only_ids_of_their_labels_and_equal_the_rasteriser(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[str, list[tuple[int, int]]]]
) -> None:
    file = tmp_path_factory.mktemp("polygons") / "a.json"
    ids = put(file, *(thing(label, [list(p) for p in polygon]) for label, polygon in shapes)).read()
    known = [(CITYSCAPES_IDS[label], [list(p) for p in polygon]) for label, polygon in shapes]
    assert set(np.unique(ids).tolist()) <= {0, *(id_ for id_, _ in known if id_ >= 0)}
    np.testing.assert_array_equal(ids, drawn(*(shape for shape in known if shape[0] >= 0)))
