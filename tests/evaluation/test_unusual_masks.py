"""match_masks and evaluate_masks on what users really have: links, other palettes, instance maps, nothing to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from perpixel.build import choose_measures, evaluate_predictions
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation import Measures, evaluate_masks
from perpixel.evaluation.mask_folders import match_masks
from perpixel.labels import LabelSpace

LABELS = LabelSpace.numbered(2)
TARGET = np.array([[0, 0, 1], [1, 255, 1]], np.uint8)


def saved(path: Path, ids: NDArray[np.generic], palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def test_match_masks_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    real = saved(tmp_path / "real" / "a.png", TARGET).parent
    for side in "pt":
        (tmp_path / side).mkdir()
        (tmp_path / side / "city").symlink_to(real)
        (tmp_path / side / "b.png").symlink_to(real / "a.png")
        (tmp_path / side / "round").symlink_to(tmp_path / side)
    assert [image.name for image in match_masks(tmp_path / "p", tmp_path / "t").images] == ["b", "city/a"]


def test_match_masks_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for side in "pt":
        saved(tmp_path / side / "a.png", TARGET)
    saved(tmp_path / "p" / ".ipynb_checkpoints" / "a-checkpoint.png", TARGET)
    saved(tmp_path / "p" / "._a.png", TARGET)
    assert [image.name for image in match_masks(tmp_path / "p", tmp_path / "t").images] == ["a"]


@pytest.mark.parametrize("pattern", [None, "{name}.png={name}.png"])
def test_match_masks_links_that_lead_nowhere_are_named(tmp_path: Path, pattern: str | None) -> None:
    for side in "pt":
        saved(tmp_path / side / "a.png", TARGET)
        (tmp_path / side / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"1 links lead nowhere: .*p/b\.png\. Fetch their files, or remove the links"):
        match_masks(tmp_path / "p", tmp_path / "t", pattern=pattern)


def test_match_masks_file_in_place_of_a_folder_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "p" / "a.png", TARGET)
    with pytest.raises(DataError, match=r"a\.png: is a file, give the folder that holds it"):
        match_masks(path, tmp_path / "p")


def test_evaluate_masks_other_palette_is_noted_for_numbered_classes_too(tmp_path: Path) -> None:
    saved(tmp_path / "t" / "a.png", TARGET, [1, 2, 3, 4, 5, 6])
    saved(tmp_path / "p" / "a.png", np.minimum(TARGET, 1), [1, 2, 3, 9, 9, 9])
    (note,) = evaluate_masks(tmp_path / "p", tmp_path / "t", LABELS).notes
    assert "1 of 1 predictions carry another palette" in note
    assert "id 1 is (9, 9, 9) there and (4, 5, 6) in the target" in note


def test_evaluate_masks_palette_of_ids_under_ignored_truth_does_not_matter(tmp_path: Path) -> None:
    palette = [value % 256 for value in range(768)]
    saved(tmp_path / "t" / "a.png", TARGET, palette)
    saved(tmp_path / "p" / "a.png", TARGET, [*palette[:765], 7, 7, 7])  # another colour of 255 alone
    assert evaluate_masks(tmp_path / "p", tmp_path / "t", LABELS).notes == ()


@pytest.mark.parametrize("side", ["p", "t"])
def test_evaluate_masks_16_bit_file_of_many_ids_is_named(tmp_path: Path, side: str) -> None:
    many = np.arange(400, dtype=np.uint16).reshape(20, 20)
    for folder in "pt":
        saved(tmp_path / folder / "a.png", many if folder == side else np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match=rf"{side}/a\.png: a 16-bit file with 400 different ids is no mask of classes"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", LABELS)


def test_evaluate_masks_several_bad_files_are_listed_by_their_own_names(tmp_path: Path) -> None:
    for name in "ab":
        saved(tmp_path / "t" / f"{name}.png", np.zeros((20, 20), np.uint8))
        saved(tmp_path / "p" / f"{name}.png", np.arange(400, dtype=np.uint16).reshape(20, 20))
    with pytest.raises(DataError, match=r"label ids\. The same in .*p/b\.png"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", LABELS)


def test_evaluate_masks_damaged_instance_map_is_the_file_that_is_named(tmp_path: Path) -> None:
    for folder in "pt":
        for name in "ab":
            saved(tmp_path / folder / f"{name}.png", np.full((4, 4), 26, np.uint8))
    saved(tmp_path / "i" / "a.png", np.full((4, 4), 26001, np.uint16))
    (tmp_path / "i" / "b.png").write_bytes(b"")
    evaluation = evaluate_masks(
        tmp_path / "p",
        tmp_path / "t",
        LabelSpace.load("cityscapes"),
        measures=Measures(cityscapes=True),
        instances_dir=tmp_path / "i",
    )
    assert [file.file for file in evaluation.unread] == [str(tmp_path / "i" / "b.png")]
    assert evaluation.totals.names == ("a",)


@pytest.mark.parametrize(("missing", "wrong"), [("refuse", False), ("wrong", True)])
def test_evaluate_masks_unread_prediction_says_whether_it_counts(tmp_path: Path, missing: str, wrong: bool) -> None:
    for folder in "pt":
        saved(tmp_path / folder / "a.png", TARGET)
    saved(tmp_path / "t" / "b.png", TARGET)
    (tmp_path / "p" / "b.png").write_bytes(b"")
    saved(tmp_path / "p" / "a.png", np.minimum(TARGET, 1))
    values = evaluate_predictions(tmp_path / "p", tmp_path / "t", 2, missing=missing)
    assert [file["counts_as_wrong"] for file in values["unread"]] == [wrong]
    assert values["images"] == 1 + wrong


def test_evaluate_masks_without_any_valid_pixel_says_so(tmp_path: Path) -> None:
    for folder in "pt":
        saved(tmp_path / folder / "a.png", np.zeros((2, 2), np.uint8))
    (note,) = evaluate_masks(tmp_path / "p", tmp_path / "t", LabelSpace.load("cityscapes")).notes
    assert "no target holds a pixel that is scored" in note
    assert "label space 'cityscapes' ignores (0, 1, 2" in note


def test_evaluate_predictions_notes_of_the_other_folder_are_kept(tmp_path: Path) -> None:
    for folder in "pqt":
        saved(tmp_path / folder / "a.png", np.minimum(TARGET, 1))
    (tmp_path / "q" / "readme.txt").write_text("other")
    values = evaluate_predictions(
        tmp_path / "p", tmp_path / "t", 2, against=tmp_path / "q", pattern="{name}.png={name}.png"
    )
    (note,) = values["comparison"]["notes"]
    assert note.endswith("1 files do not match '{name}.png' and were passed over")


def test_evaluate_predictions_other_folder_without_scores_is_refused(tmp_path: Path) -> None:
    for folder in "pqt":
        saved(tmp_path / folder / "a.png", np.full((2, 2), 7 if folder == "q" else 1, np.uint8))
    mmseg = choose_measures(convention="mmseg")
    with pytest.raises(
        DataError, match=r"the masks in .*q have no scores to compare with: .*a\.png: 4 pixels hold ids"
    ):
        evaluate_predictions(tmp_path / "p", tmp_path / "t", 2, measures=mmseg, against=tmp_path / "q")


def test_evaluate_predictions_predicted_void_leaves_what_other_toolkits_print(tmp_path: Path) -> None:
    saved(tmp_path / "t" / "a.png", np.array([[0, 0, 1, 1]], np.uint8))
    saved(tmp_path / "p" / "a.png", np.array([[0, 255, 1, 1]], np.uint8))
    values = evaluate_predictions(tmp_path / "p", tmp_path / "t", 2, measures=choose_measures(all_conventions=True))
    assert "1 pixels are predicted as ignored where the target is valid" in values["refused"]
    assert values["conventions"]["mmseg"]["printed"] == "75.00"
    assert values["conventions"]["perpixel"]["error"]


def test_evaluate_masks_instance_map_of_another_size_is_named(tmp_path: Path) -> None:
    for folder in "pt":
        saved(tmp_path / folder / "a.png", np.full((4, 4), 26, np.uint8))
    saved(tmp_path / "i" / "a.png", np.full((3, 3), 26001, np.uint16))
    labels, measures = LabelSpace.load("cityscapes"), Measures(cityscapes=True)
    with pytest.raises(DataError, match=r"i/a\.png: maps of one image must share one shape"):
        evaluate_masks(tmp_path / "p", tmp_path / "t", labels, measures=measures, instances_dir=tmp_path / "i")


def test_measures_widths_that_are_written_alike_are_refused() -> None:
    with pytest.raises(InvalidValue, match="trimap_px holds a width twice: 1, 1"):
        Measures(trimap_px=(1.0, 1.0000001))
