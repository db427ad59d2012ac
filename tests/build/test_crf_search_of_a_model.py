"""CRF numbers searched for a trained model, and what follows a model: post-processing and a server's archive."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import NAMES

from perpixel.build import Progress, RunResult, evaluate, load, predict, search_crf
from perpixel.build.crf_choice import read_crf
from perpixel.build.crf_search import _notes, _spread
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.crf_search import CRFGrid
from perpixel.inference import PostProcessing
from perpixel.inference.dense_crf import DenseCRF
from perpixel.inference.submissions import SUBMISSIONS, MaskServer

GRID = CRFGrid(bilateral_weight=(2.0, 9.0), bilateral_width=(4.0,), color_width=(30.0,))
START = DenseCRF(iterations=1, bilateral_width=4, color_width=30)


def test_search_crf_gives_numbers_gains_and_a_file(trained: RunResult, data: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = search_crf(
        trained.folder,
        data,
        images=2,
        grid=GRID,
        start=START,
        device="cpu",
        out=tmp_path / "crf.yaml",
        on_progress=seen.append,
    )
    assert read_crf(tmp_path / "crf.yaml") == DenseCRF(**found["crf"])
    assert (found["crf"]["spatial_weight"], found["crf"]["spatial_width"], found["crf"]["iterations"]) == (3, 3, 1)
    assert [row["bilateral_weight"] for row in found["trials"]] == [4.0, 2.0, 9.0]
    best = max(row["mean_iou"] for row in found["trials"])
    assert found["searched"]["mean_iou"]["with"] == best >= found["start"]["mean_iou"]
    gain = found["searched"]["gain"]
    assert gain["difference"] == pytest.approx(best - found["searched"]["mean_iou"]["without"])
    assert gain["low"] <= gain["difference"] <= gain["high"]
    assert (found["searched"]["images"], found["unseen"]["images"]) == (2, 1)
    at_an_end = found["crf"]["bilateral_weight"] in GRID.bilateral_weight
    assert len(found["notes"]) == at_an_end
    assert {p.phase for p in seen} == {"score", "crf-search"}
    assert seen[-1].phase == "score"  # the unseen images, scored last


def test_search_crf_over_the_whole_split_scores_as_evaluate_does(trained: RunResult, data: Path) -> None:
    found = search_crf(load(trained.folder), data, grid=GRID, start=START, method="grid")
    assert found["unseen"] is None
    assert found["searched"]["mean_iou"]["without"] == trained.scores["mean_iou"]
    again = evaluate(trained.folder, data, device="cpu", crf=DenseCRF(**found["crf"]), border_width_px=None)
    assert found["searched"]["mean_iou"]["with"] == again["mean_iou"]


@pytest.mark.parametrize("options", [{"images": 0}, {"unseen": -1}])
def test_search_crf_without_images_is_refused(trained: RunResult, data: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match="the search takes at least 1 image and 0 unseen ones"):
        search_crf(trained.folder, data, device="cpu", **options)


def test_notes_name_numbers_at_the_end_of_what_was_tried() -> None:
    notes = _notes(DenseCRF(bilateral_weight=9.0, bilateral_width=4, color_width=30), GRID)
    assert notes == ["bilateral_weight 9 is the largest that was tried; a wider range may hold better ones"]
    assert not _notes(DenseCRF(bilateral_weight=5.0), GRID)


def test_spread_takes_evenly_from_the_whole() -> None:
    assert _spread(range(10), 3) == [1, 5, 8]
    assert _spread([4, 7], 5) == [4, 7]
    assert _spread(range(3), 0) == []


# What follows a model


def test_predict_and_evaluate_apply_post_processing(trained: RunResult, data: Path, tmp_path: Path) -> None:
    after = PostProcessing(min_region=60, thresholds={NAMES[0]: 0.5})
    images = sorted((data / "val" / "images").iterdir())
    predict(trained.folder, images, tmp_path / "p", device="cpu", precision="fp32", postprocessing=after)
    stored = np.asarray(Image.open(tmp_path / "p" / f"{images[0].stem}.png"))
    assert np.array_equal(stored, load(trained.folder, postprocessing=after)(images[0]).mask)
    assert not np.array_equal(stored, load(trained.folder)(images[0]).mask)
    scores = evaluate(trained.folder, data, device="cpu", postprocessing=after, border_width_px=None)
    assert scores["confusion"] != trained.scores["confusion"]


def test_predict_submit_writes_the_servers_archive(
    trained: RunResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = data / "val" / "images"
    with pytest.raises(DataError, match="takes the 19 classes of label space 'cityscapes'"):
        predict(trained.folder, [images], tmp_path / "o", device="cpu", submit="cityscapes")
    server = SUBMISSIONS["ade20k"]
    assert isinstance(server, MaskServer)
    ours = replace(server, space=str(data / "labels.yaml"), pattern=r"(v \d)", example="v 0", counts=(4,))
    monkeypatch.setitem(SUBMISSIONS, "ade20k", ours)
    done = predict(
        trained.folder, [images], tmp_path / "o", device="cpu", precision="fp32", submit="ade20k", partial=True
    )
    assert done.submission == tmp_path / "o" / "ade20k.zip"
    assert (done.images, done.failures) == (3, ())
    assert "a trial" in done.notes[0]
    with zipfile.ZipFile(done.submission) as archive:
        assert archive.namelist() == ["v 0.png", "v 1.png", "v 2.png"]
        with archive.open("v 1.png") as file:
            mask = np.asarray(Image.open(file))
    assert np.array_equal(mask, load(trained.folder)(images / "v 1.png").mask)
