"""Which images are shown, and that their pictures hold what the files hold."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.labels import LabelSpace
from perpixel.report.pictures import BORDER_COLOR, INSIDE_COLOR, Card, picture_groups
from perpixel.report.read_run import RunRecord, read_run


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def one_card(tmp_path: Path, truth: np.ndarray, prediction: np.ndarray, **labels: object) -> Card:
    """Returns the card of a single image whose masks are stored as given."""
    for name, ids in (("image", truth * 9), ("truth", truth), ("prediction", prediction)):
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / f"{name}.png")
    space = LabelSpace(**{**vars_of(LabelSpace.numbered(3)), **labels})
    entry = {"name": "one", "image": "image.png", "target": "truth.png", "prediction": "prediction.png"}
    (tmp_path / "config.yaml").write_text("name: one\n")
    run = replace(read_run(tmp_path), labels=space, images=(entry,))
    (group,) = picture_groups(run, border_width_px=1)
    return group.cards[0]


def vars_of(labels: LabelSpace) -> dict[str, object]:
    return {"names": labels.names, "colors": labels.colors, "stored_to_train": labels.stored_to_train}


def with_scores(run: Path, scores: list[float | None]) -> RunRecord:
    record = read_run(run)
    images = tuple({**record.images[0], "name": str(i), "mean_iou": score} for i, score in enumerate(scores))
    return replace(record, images=images)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, {"All images": "210"}),
        (5, {"Best": "432", "Worst": "01"}),
        (8, {"Best": "765", "Typical (around the median)": "43", "Worst": "012"}),
        (10, {"Best": "987", "Typical (around the median)": "654", "Worst": "012"}),
    ],
)
def test_picture_groups_each_image_once(own_run: Path, count: int, expected: dict[str, str]) -> None:
    groups = picture_groups(with_scores(own_run, [i / 10 for i in range(count)]), border_width_px=3)
    assert {group.title: "".join(card.name for card in group.cards) for group in groups} == expected


def test_picture_groups_undefined_score_comes_last(own_run: Path) -> None:
    (group,) = picture_groups(with_scores(own_run, [0.2, None, 0.0]), border_width_px=3)
    assert [card.name for card in group.cards] == ["0", "2", "1"]


def test_picture_groups_masks_show_the_class_colours(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert run.labels is not None
    card = picture_groups(run, border_width_px=3)[0].cards[0]
    picture = np.asarray(opened(card.truth).convert("RGB"))
    assert picture.shape == (360, 480, 3)
    shown = {tuple(int(v) for v in color) for color in np.unique(picture.reshape(-1, 3), axis=0)}
    assert shown <= {*run.labels.colors, run.labels.ignore_color}
    assert card.problems == ()


def test_error_map_tells_border_errors_from_inside_errors(tmp_path: Path) -> None:
    truth = np.zeros((60, 60), dtype=np.uint8)
    truth[:, 30:] = 1
    truth[50:] = 255
    prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
    prediction[:20, 28:32] = 2
    prediction[20:40, 5:15] = 2
    card = one_card(tmp_path, truth, prediction)
    picture = np.asarray(opened(card.errors), dtype=int)[4::8, 4::8]  # the middle of each enlarged pixel
    assert picture.shape == (60, 60, 3)

    def painted(color: tuple[int, int, int]) -> np.ndarray:
        return np.abs(picture - color).max(axis=2) < 24

    near, inside = painted(BORDER_COLOR), painted(INSIDE_COLOR)
    expected = np.zeros((60, 60), dtype=bool)
    expected[20:40, 5:15] = True
    np.testing.assert_array_equal(inside, expected)
    expected[:] = False
    expected[:20, 28:32] = True
    np.testing.assert_array_equal(near, expected)


def test_card_predictions_without_own_ids_are_train_ids(tmp_path: Path) -> None:
    truth = np.full((8, 8), 7)
    stored = {5: 0, 6: 0, 7: 1, 8: 2, 255: 255}
    card = one_card(tmp_path, truth, np.ones((8, 8)), stored_to_train=stored)
    assert card.problems == ()
    assert opened(card.truth).convert("RGB").getpixel((0, 0)) == opened(card.prediction).convert("RGB").getpixel((0, 0))


def test_card_predictions_with_stored_ids_are_mapped_back(tmp_path: Path) -> None:
    spaces = {"stored_to_train": {10: 0, 20: 1, 30: 2, 0: 255}, "train_to_stored": (10, 20, 30)}
    card = one_card(tmp_path, np.full((8, 8), 20), np.full((8, 8), 20), **spaces)
    assert card.problems == ()
    assert opened(card.prediction).convert("RGB").getpixel((0, 0)) == LabelSpace.numbered(3).colors[1]


@pytest.mark.parametrize(
    ("prediction", "problem"),
    [
        (np.full((8, 8), 77), "The prediction cannot be shown: prediction.png: id 77 is no class of label space"),
        (np.zeros((4, 4)), "image, truth and prediction have different sizes: (4, 4), (8, 8)."),
    ],
)
def test_card_that_does_not_fit_says_so(tmp_path: Path, prediction: np.ndarray, problem: str) -> None:
    card = one_card(tmp_path, np.zeros((8, 8)), prediction)
    assert any(text.startswith(problem) for text in card.problems)
    assert card.errors is None


def test_card_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    truth = np.zeros((500, 1000))
    card = one_card(tmp_path, truth, truth)
    sizes = {opened(uri).size for uri in (card.image, card.truth, card.prediction, card.errors)}
    assert sizes == {(480, 240)}


def test_card_colour_masks_are_read_as_the_configuration_says(own_run: Path) -> None:
    run = read_run(own_run)
    assert run.labels is not None
    target = Path(run.images[0]["target"])
    stored = np.asarray(Image.open(target))
    expected = run.labels.colorize(run.labels.encode(stored))
    Image.fromarray(expected).save(target)
    config = {"data": {"mask_encoding": "colors"}}
    (group,) = picture_groups(replace(run, config=config, images=run.images[:1]), border_width_px=3)
    assert group.cards[0].problems == ()
    np.testing.assert_array_equal(np.asarray(opened(group.cards[0].truth).convert("RGB"))[::4, ::4], expected)


def test_card_entry_without_paths_says_so(own_run: Path) -> None:
    (own_run / "predictions/images.json").write_text(json.dumps([{"name": "bare"}]))
    (group,) = picture_groups(read_run(own_run), border_width_px=3)
    assert group.cards[0].problems == tuple(
        f"predictions/images.json names no {key}." for key in ("image", "target", "prediction")
    )
