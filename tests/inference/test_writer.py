"""predict_files: what lies on disk afterwards, and what happens to files that cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from perpixel.errors import DataError, RunError
from perpixel.inference import Segmenter, predict_files
from perpixel.labels import LabelSpace
from perpixel.types import SegOutput

LABELS = LabelSpace.numbered(3)


def save_image(path, classes):
    """Writes an image whose pixels a BrightnessNetwork puts into these classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*np.shape(classes), 3), np.uint8)
    pixels[..., 0] = np.asarray(classes) * 20
    Image.fromarray(pixels).save(path)


@pytest.fixture
def segmenter(brightness_network):
    return Segmenter(brightness_network(), LABELS)


def lines_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def files_below(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_predict_files_folder_gives_masks_overlays_and_record(segmenter, tmp_path):
    save_image(tmp_path / "in" / "a.png", [[0, 1, 1, 2]])
    save_image(tmp_path / "in" / "sub" / "b.png", [[2], [2]])
    progress = []
    report = predict_files(segmenter, [tmp_path / "in"], tmp_path / "out", on_progress=lambda *a: progress.append(a))
    out = tmp_path / "out"
    assert files_below(out) == ["a.png", "overlays/a.jpg", "overlays/sub/b.jpg", "predictions.jsonl", "sub/b.png"]
    with Image.open(out / "a.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask).tolist() == [[0, 1, 1, 2]]
    first, second = lines_of(out)
    assert first.pop("seconds") >= 0
    assert first == {
        "image": (tmp_path / "in" / "a.png").as_posix(),
        "mask": "a.png",
        "overlay": "overlays/a.jpg",
        "height": 1,
        "width": 4,
        "classes": {"class 1": 0.5, "class 0": 0.25, "class 2": 0.25},
    }
    assert second["mask"] == "sub/b.png"
    assert (report.images, report.pixels, report.failures, report.notes, report.out) == (2, 6, (), (), out)
    assert progress == [(1, 2, tmp_path / "in" / "a.png"), (2, 2, tmp_path / "in" / "sub" / "b.png")]


def test_predict_files_without_overlays_writes_none(segmenter, tmp_path):
    save_image(tmp_path / "a.png", [[0]])
    predict_files(segmenter, [tmp_path / "a.png"], tmp_path / "out", overlays=False)
    assert files_below(tmp_path / "out") == ["a.png", "predictions.jsonl"]
    assert lines_of(tmp_path / "out")[0]["overlay"] is None


def test_predict_files_unreadable_file_is_named_after_the_rest_is_written(segmenter, tmp_path):
    save_image(tmp_path / "in" / "a.png", [[0]])
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    save_image(tmp_path / "in" / "c.png", [[1]])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"(?s)1 of 3 images could not be predicted; the other 2 .*b\.png: not a JPEG"):
        predict_files(segmenter, [tmp_path / "in"], out)
    assert files_below(out) == ["a.png", "c.png", "overlays/a.jpg", "overlays/c.jpg", "predictions.jsonl"]
    good, bad, _ = lines_of(out)
    assert "error" not in good
    assert set(bad) == {"image", "error"}
    assert "b.png: not a JPEG" in bad["error"]


def test_predict_files_skipped_errors_are_in_the_report(segmenter, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no picture")
    report = predict_files(segmenter, [tmp_path / "b.png"], tmp_path / "out", skip_errors=True)
    assert report.images == 0
    assert [failure.image for failure in report.failures] == [tmp_path / "b.png"]
    assert "not a JPEG" in report.failures[0].reason


def test_predict_files_many_failures_are_counted_and_all_in_the_record(segmenter, tmp_path):
    for index in range(23):
        (tmp_path / f"{index}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"(?s)23 of 23 .* and 3 more"):
        predict_files(segmenter, [tmp_path], tmp_path / "out")
    assert sum("error" in line for line in lines_of(tmp_path / "out")) == 23


def test_predict_files_shared_names_lose_no_result(segmenter, tmp_path):
    save_image(tmp_path / "in" / "a.png", [[0, 0]])
    save_image(tmp_path / "in" / "a.bmp", [[1, 1]])
    report = predict_files(segmenter, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert files_below(tmp_path / "out") == ["a.bmp.png", "a.png.png", "predictions.jsonl"]
    assert len(report.notes) == 2


def test_predict_files_second_run_replaces_the_first(segmenter, tmp_path):
    image = tmp_path / "a.png"
    for value in (0, 1):
        save_image(image, [[value]])
        predict_files(segmenter, [image], tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert np.asarray(mask).tolist() == [[1]]
    assert len(lines_of(tmp_path / "out")) == 1


def test_predict_files_output_that_would_replace_an_input_refused(segmenter, tmp_path):
    save_image(tmp_path / "a.png", [[1]])
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(DataError, match=r"a\.png is an input and would be replaced"):
        predict_files(segmenter, [tmp_path / "a.png"], tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_predict_files_out_that_is_a_file_refused(segmenter, tmp_path):
    save_image(tmp_path / "a.png", [[1]])
    (tmp_path / "out").touch()
    with pytest.raises(RunError, match="out: results cannot be written"):
        predict_files(segmenter, [tmp_path / "a.png"], tmp_path / "out")


def test_predict_files_broken_off_run_keeps_what_was_done(segmenter, tmp_path):
    save_image(tmp_path / "in" / "a.png", [[0]])
    save_image(tmp_path / "in" / "b.png", [[0]])

    def stop(done, total, image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(segmenter, [tmp_path / "in"], tmp_path / "out", on_progress=stop)
    assert [line["mask"] for line in lines_of(tmp_path / "out")] == ["a.png"]


def test_predict_files_scores_that_are_not_finite_name_the_file(segmenter, tmp_path):
    save_image(tmp_path / "odd.png", [[0, 1]])
    segmenter.network.forward = lambda images: SegOutput(images * float("nan"))
    with pytest.raises(RunError, match=r"odd\.png: .* not finite for images of 1 x 2 pixels"):
        predict_files(segmenter, [tmp_path / "odd.png"], tmp_path / "out")
