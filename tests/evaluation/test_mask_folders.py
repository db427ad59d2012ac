"""match_masks: which files belong together, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.mask_folders import match_masks

CITY = "**/{name}_pred.png=**/{name}_gtFine_labelIds.png"


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def test_match_masks_cityscapes_names_match_across_folders(tmp_path: Path) -> None:
    ours = made(tmp_path / "p", "frankfurt_000000_000294_leftImg8bit.png", "munster_000001_000019_leftImg8bit.png")
    city = "frankfurt/frankfurt_000000_000294_gtFine", "munster/munster_000001_000019_gtFine"
    truth = made(tmp_path / "t", *(f"{c}_{kind}.png" for c in city for kind in ("labelIds", "instanceIds", "color")))
    pattern = "{name}_leftImg8bit.png=**/{name}_gtFine_labelIds.png=**/{name}_gtFine_instanceIds.png"
    matched = match_masks(ours, truth, pattern=pattern, instances_dir=truth)
    first = matched.images[0]
    assert [image.name for image in matched.images] == ["frankfurt_000000_000294", "munster_000001_000019"]
    assert first.prediction == ours / "frankfurt_000000_000294_leftImg8bit.png"
    assert first.target == truth / f"{city[0]}_labelIds.png"
    assert first.instances == truth / f"{city[0]}_instanceIds.png"
    assert len(matched.notes) == 2
    assert "4 files do not match '**/{name}_gtFine_labelIds.png' and were passed over" in matched.notes[0]


def test_match_masks_name_keeps_its_folders_and_star_stays_within_one(tmp_path: Path) -> None:
    ours = made(tmp_path / "p", "a/x_v1.png", "b/x_v22.png", "a/x.txt")
    truth = made(tmp_path / "t", "a/x.gt.png", "b/x.gt.png")
    matched = match_masks(ours, truth, pattern="{name}_v*.png={name}.gt.png")
    assert [(i.name, i.prediction.name) for i in matched.images] == [("a/x", "x_v1.png"), ("b/x", "x_v22.png")]


def test_match_masks_without_common_names_points_at_the_pattern(tmp_path: Path) -> None:
    ours, truth = made(tmp_path / "p", "x_pred.png"), made(tmp_path / "t", "x_gt.png")
    with pytest.raises(DataError, match=r"such as 'x_pred' and 'x_gt'\): say how they belong together with --pattern"):
        match_masks(ours, truth)
    with pytest.raises(DataError, match="correct the pattern"):
        match_masks(ours, truth, pattern="{name}.png={name}_gt.png")


def test_match_masks_extra_and_missing_files_are_counted_together(tmp_path: Path) -> None:
    ours = made(tmp_path / "p", "x.png", "extra.png")
    truth = made(tmp_path / "t", "x.png", *(f"m{i:02}.png" for i in range(25)))
    with pytest.raises(DataError, match=r"1 predictions have no target: .*extra\.png.*25 targets .* and 5 more"):
        match_masks(ours, truth)


def test_match_masks_two_files_of_one_pattern_name_refused(tmp_path: Path) -> None:
    ours = made(tmp_path / "p", "a/x_pred.png", "b/x_pred.png")
    truth = made(tmp_path / "t", "x_gtFine_labelIds.png")
    with pytest.raises(DataError, match="share the name 'x'; keep one mask per image"):
        match_masks(ours, truth, pattern=CITY)


def test_match_masks_pattern_without_any_file_shows_one(tmp_path: Path) -> None:
    ours, truth = made(tmp_path / "p", "x_out.png"), made(tmp_path / "t", "x_gtFine_labelIds.png")
    with pytest.raises(
        DataError, match=r"none of its 1 files matches the pattern '\*\*/\{name\}_pred\.png'; one is x_ou"
    ):
        match_masks(ours, truth, pattern=CITY)


def test_match_masks_missing_instances_are_named(tmp_path: Path) -> None:
    ours, truth, numbers = (made(tmp_path / d, "x.png") for d in "pti")
    made(ours, "y.png")
    made(truth, "y.png")
    with pytest.raises(DataError, match=r"1 targets have no instances in .*y\.png"):
        match_masks(ours, truth, instances_dir=numbers)


@pytest.mark.parametrize(
    "pattern", ["{name}.png", "{name}.png=x.png", "{name}{name}.png={name}.png", "{name}=", "a=b=c"]
)
def test_match_masks_malformed_pattern_refused(tmp_path: Path, pattern: str) -> None:
    made(tmp_path, "x.png")
    with pytest.raises(InvalidValue, match=r"a pattern is PREDICTION=TARGET, file names with \{name\} once in each"):
        match_masks(tmp_path, tmp_path, pattern=pattern)
