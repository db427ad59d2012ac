"""Two runs on the same images: the counts, the test, which images changed, and what keeps runs from being compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.labels import LabelSpace
from perpixel.metrics.image_changes import ImageChange
from perpixel.report.changed_images import BOTH_WRONG_COLOR, GAINED_COLOR, LOST_COLOR, change_groups, difference_map
from perpixel.report.compare import compare_runs
from perpixel.report.per_image import COUNTS_FILE, PerImage, per_image
from perpixel.report.pictures import IGNORED_COLOR
from perpixel.report.read_run import RunRecord, read_run, told_apart


def run_of(folder: Path, counts: object, names: list[str], classes: int = 2) -> RunRecord:
    """A run folder that holds counts and little else."""
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {folder.name}\n")
    np.savez(folder / COUNTS_FILE, names=np.array(names), counts=np.array(counts))
    return replace(read_run(folder), labels=LabelSpace.numbered(classes))


def image(right: int) -> list[list[int]]:
    """Counts of 20 pixels, half of each of two classes; of each class ``right`` are right."""
    return [[right, 10, 10], [right, 10, 10]]


def test_per_image_counts_of_the_file_equal_those_of_the_saved_masks(own_run: Path) -> None:
    kept = per_image(read_run(own_run))
    (own_run / COUNTS_FILE).unlink()
    again = per_image(read_run(own_run))
    assert isinstance(kept, PerImage)
    assert isinstance(again, PerImage)
    assert kept.names == again.names
    assert np.array_equal(kept.counts, again.counts)
    assert (kept.recounted, again.recounted) == (False, True)


def test_per_image_masks_that_are_gone_are_named(own_run: Path) -> None:
    (own_run / COUNTS_FILE).unlink()
    (own_run / "predictions/frame_0001.png").unlink()
    found = per_image(read_run(own_run))
    assert isinstance(found, str)
    assert "has no predictions/counts.npz" in found
    assert "frame_0001: The prediction is no longer at predictions/frame_0001.png" in found


def test_per_image_without_counts_and_list_says_so(own_run: Path) -> None:
    (own_run / COUNTS_FILE).unlink()
    (own_run / "predictions/images.json").unlink()
    assert "predictions/images.json is not in the run folder" in str(per_image(read_run(own_run)))


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut short", b"", b"text"])
def test_per_image_damaged_counts_are_named(own_run: Path, content: bytes) -> None:
    (own_run / COUNTS_FILE).write_bytes(content)
    assert "counts.npz of small is damaged" in str(per_image(read_run(own_run)))


def test_per_image_counts_of_another_shape_are_named(tmp_path: Path) -> None:
    found = per_image(run_of(tmp_path / "odd", [[1, 2, 3]], ["a"]))
    assert "holds names (1,) and counts (1, 3) int64 where (N,) and (N, K, 3) whole numbers belong" in str(found)


def test_compare_runs_by_hand(tmp_path: Path) -> None:
    names = [f"image {i}" for i in range(8)]
    first = run_of(tmp_path / "first", [image(9)] * 7 + [image(4)], names)
    # The second run lists its images in another order; each is matched by name.
    second = run_of(tmp_path / "second", [image(5)] * 8, names[::-1])
    found = compare_runs(first, second)
    assert found.problem is None
    assert found.recounted == ()
    test = found.tests[0]
    iou = [right / (160 - right) for right in (67, 40)]
    assert (test.first, test.second) == pytest.approx([67 / (160 - 67), 40 / (160 - 40)])
    assert test.difference == pytest.approx(iou[0] - iou[1])
    assert (found.better, found.worse, found.undefined) == (7, 1, 0)
    assert found.images[0] == ImageChange(name="image 0", first=9 / 11, second=5 / 15)
    assert found.images[-1] == ImageChange(name="image 7", first=4 / 16, second=5 / 15)
    row = found.classes[0]
    assert row.difference == pytest.approx(iou[0] - iou[1])
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.difference < row.high
    assert row.clear == (row.low > 0)


def test_compare_runs_with_itself_finds_no_difference(tmp_path: Path) -> None:
    run = run_of(tmp_path / "same", [image(9), image(3), image(5)], ["a", "b", "c"])
    found = compare_runs(run, run)
    assert (found.better, found.worse) == (0, 0)
    assert found.tests[0].words.startswith("both have the same mean IoU")
    assert not any(row.clear for row in found.classes)


def test_compare_runs_turned_round_turns_every_sign(finished_run: Path, other_run: Path) -> None:
    first, second = read_run(finished_run), read_run(other_run)
    one, two = compare_runs(first, second), compare_runs(second, first)
    assert one.tests[0].difference == pytest.approx(-two.tests[0].difference)
    assert {i.name: i.change for i in one.images} == {i.name: -i.change for i in two.images}
    assert (one.better, one.worse) == (two.worse, two.better)


def test_compare_runs_images_without_labelled_pixels_are_counted(tmp_path: Path) -> None:
    counts = [image(9), image(8), [[0, 0, 0], [0, 0, 0]]]
    first, second = (run_of(tmp_path / name, counts, ["a", "b", "void"]) for name in ("first", "second"))
    found = compare_runs(first, second)
    assert (len(found.images), found.undefined) == (2, 1)


def test_compare_runs_other_images_are_refused_and_named(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first", [image(9)] * 6, list("abcdef"))
    second = run_of(tmp_path / "second", [image(9)] * 2, ["a", "z"])
    found = compare_runs(first, second)
    assert found.problem is not None
    assert (
        "first and second scored different images: 5 only in first (b, c, d and more), 1 only in second (z); 1 are"
        in (found.problem)
    )
    assert found.tests == ()


def test_compare_runs_other_truth_is_refused(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first", [image(9), image(9)], ["a", "b"])
    second = run_of(tmp_path / "second", [image(9), [[9, 12, 10], [7, 8, 10]]], ["a", "b"])
    problem = compare_runs(first, second).problem
    assert problem is not None
    assert "first and second do not compare: 1 images have other true pixels on the two sides" in problem


def test_compare_runs_other_classes_are_refused(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first", [image(9)], ["a"])
    second = run_of(tmp_path / "second", [[*image(9), [0, 0, 0]]], ["a"], classes=3)
    assert "have other classes (2 and 3)" in str(compare_runs(first, second).problem)


def test_compare_runs_image_named_twice_is_refused(tmp_path: Path) -> None:
    first = run_of(tmp_path / "first", [image(9), image(8)], ["a", "a"])
    assert compare_runs(first, first).problem == (
        "first names an image twice, so its images cannot be matched with another run's."
    )


def test_compare_runs_says_which_masks_were_counted_again(own_run: Path) -> None:
    (own_run / COUNTS_FILE).unlink()
    record = read_run(own_run)
    assert compare_runs(record, record).recounted == ("small", "small")


def test_difference_map_paints_who_is_right() -> None:
    truth = np.array([[0, 0, 0, 0, 255]], dtype=np.uint8)
    first = np.array([[0, 0, 1, 1, 1]], dtype=np.uint8)
    second = np.array([[0, 1, 0, 2, 0]], dtype=np.uint8)
    painted = difference_map(None, truth, first, second)[0]
    assert painted[0].tolist() == [231, 231, 231]
    assert [tuple(pixel) for pixel in painted[1:].tolist()] == [
        GAINED_COLOR,
        LOST_COLOR,
        BOTH_WRONG_COLOR,
        IGNORED_COLOR,
    ]


def test_change_groups_largest_changes_first_in_both_directions(finished_run: Path, other_run: Path) -> None:
    run, other = read_run(finished_run), read_run(other_run)
    changes = [0.3, 0.2, 0.1, 0.05, 0.0, -0.1, -0.2]
    images = [ImageChange(name=f"frame_{i:04d}", first=0.5 + c, second=0.5) for i, c in enumerate(changes)]
    groups = change_groups(run, other, [*images, ImageChange(name="not saved", first=0.0, second=1.0)])
    assert [group.title for group in groups] == ["Where dfn-demo gains most", "Where dfn-demo loses most"]
    assert [[card.name[-1] for card in group.cards] for group in groups] == [["0", "1", "2"], ["6", "5"]]
    card = groups[0].cards[0]
    assert card.problems == ()
    assert None not in (card.image, card.truth, card.first, card.second, card.difference)
    assert card.first != card.second


def test_change_groups_masks_of_another_size_are_named(finished_run: Path, own_run: Path) -> None:
    record = json.loads((own_run / "predictions/images.json").read_text())
    for entry in record:
        entry["prediction"] = "predictions/cut.png"
    with Image.open(own_run / "predictions/frame_0000.png") as mask:
        mask.crop((0, 0, 10, 10)).save(own_run / "predictions/cut.png")
    (own_run / "predictions/images.json").write_text(json.dumps(record))
    change = ImageChange(name="frame_0000", first=0.5, second=0.4)
    (group,) = change_groups(read_run(finished_run), read_run(own_run), [change])
    assert group.cards[0].difference is None
    assert "different sizes: (10, 10), (90, 120)" in group.cards[0].problems[0]


def test_told_apart_runs_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    runs = []
    for folder in ("day/one", "day/two", "night/one"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text("name: dfn_demo\n")
        runs.append(read_run(tmp_path / folder))
    assert [run.name for run in told_apart(runs[0], runs[1])] == ["dfn_demo (one)", "dfn_demo (two)"]
    names = [run.name for run in told_apart(runs[0], runs[2])]
    assert names == [f"dfn_demo ({(tmp_path / folder).resolve()})" for folder in ("day/one", "night/one")]


def test_told_apart_runs_of_other_names_keep_them(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, [image(9)], ["a"]) for name in ("first", "second")]
    assert told_apart(*runs) == tuple(runs)
