"""``perpixel evaluate`` in its two forms, and ``perpixel predict``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import SCORES, Done, FakeProgress

from perpixel.evaluation import Measures
from perpixel.evaluation.measures import BoundaryOptions
from perpixel.metrics import CONVENTIONS

Cli = Callable[..., Done]


@dataclass(frozen=True, kw_only=True)
class FakeFailure:
    image: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class FakeReport:
    images: int = 4
    pixels: int = 400
    seconds: float = 2.0
    failures: tuple[FakeFailure, ...] = ()
    notes: tuple[str, ...] = ("two inputs share a name",)
    submission: Path | None = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def score(*given: Any, on_progress: Any, **options: Any) -> dict[str, Any]:
        on_progress(FakeProgress(phase="evaluate"))
        made.append((given, options))
        return SCORES

    monkeypatch.setattr("perpixel.build.evaluate", score)
    monkeypatch.setattr("perpixel.build.evaluate_predictions", score)
    return made


def test_evaluate_model_prints_the_table_and_writes_json(run_cli: Cli, calls: list[Any]) -> None:
    done = run_cli(
        "evaluate", "best", "--data", "camvid:/d", "--split", "test", "--border-width", 0, "--json", "s.json"
    )
    assert done.code == 0, done.err
    ((given, options),) = calls
    assert given == (Path("best"), "camvid:/d")
    assert (
        options.items()
        >= {
            "split": "test",
            "labels": None,
            "mask_encoding": None,
            "device": "auto",
            "precision": "fp32",
            "border_width_px": None,
            "crf": False,
            "protocol": None,
            "scales": None,
            "flip": None,
            "tile": None,
            "memory": None,
            "measures": Measures(),
            "intervals": False,
            "per_image": False,
        }.items()
    )
    assert options["postprocessing"].is_empty
    assert "mean IoU 50.00 % over 2 of 3 classes" in done.out
    assert json.loads(Path("s.json").read_text()) == SCORES


def test_evaluate_saved_masks(run_cli: Cli, calls: list[Any]) -> None:
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", 3, "--missing", "wrong")
    assert done.code == 0, done.err
    ((given, options),) = calls
    assert given == (Path("p"), Path("t"), "3")
    assert options == {
        "missing": "wrong",
        "pattern": None,
        "mask_encoding": "ids",
        "measures": Measures(),
        "intervals": False,
        "per_image": False,
        "instances": None,
        "against": None,
        "workers": None,
    }


def test_evaluate_saved_masks_options_reach_the_scoring(run_cli: Cli, calls: list[Any]) -> None:
    masks = ("--predictions", "p", "--targets", "t", "--labels", "cityscapes")
    done = run_cli(
        *("evaluate", *masks, "--pattern", "{name}_p.png={name}_t.png", "--instances", "i", "--against", "q"),
        *("--boundary", "--trimap", "1,3,5", "--intervals", "--per-image", "--convention", "mmseg", "--workers", 2),
        *("--bf", "tolerance_px=2,strict", "--dilation-ratio", 0.005, "--border-width", 3),
    )
    assert done.code == 0, done.err
    options = calls[0][1]
    chosen = Measures(
        boundary=True,
        boundary_options=BoundaryOptions(tolerance_px=2, strict=True, dilation_ratio=0.005),
        border_width_px=3,
        trimap_px=(1, 3, 5),
        conventions=("mmseg",),
        cityscapes=True,
    )
    assert options["measures"] == chosen
    assert (options["pattern"], options["instances"], options["against"]) == (
        "{name}_p.png={name}_t.png",
        Path("i"),
        Path("q"),
    )
    assert (options["intervals"], options["per_image"], options["workers"]) == (True, True, 2)


def test_evaluate_model_procedure_options_reach_the_scoring(run_cli: Cli, calls: list[Any]) -> None:
    done = run_cli(
        *("evaluate", "best", "--data", "d", "--protocol", "semseg", "--scales", "0.5,1", "--flip", "--tile", "64x32"),
        *("--min-region", 9, "--calibration", "--all-conventions"),
    )
    assert done.code == 0, done.err
    options = calls[0][1]
    assert (options["protocol"], options["scales"], options["flip"], options["tile"]) == (
        "semseg",
        (0.5, 1.0),
        True,
        (64, 32),
    )
    assert options["postprocessing"].min_region == 9
    assert options["measures"] == Measures(calibration=True, conventions=tuple(CONVENTIONS))


def test_evaluate_unread_files_exit_2_after_the_scores(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "p/x.png: cannot be read as an image"
    unread = [{"file": "p/x.png", "reason": reason, "counts_as_wrong": False}]
    monkeypatch.setattr("perpixel.build.evaluate_predictions", lambda *_, **__: {**SCORES, "unread": unread})
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", "3", "--json", "s.json")
    assert done.code == 2
    assert "mean IoU 50.00 %" in done.out
    assert "1 files could not be read; the scores are of the other images:\n  p/x.png: cannot" in done.err
    assert json.loads(Path("s.json").read_text())["unread"] == unread


def test_evaluate_unread_files_that_count_as_wrong_are_told_apart(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [{"file": f, "reason": f"{f}: empty", "counts_as_wrong": f < "t"} for f in ("p/x.png", "t/y.png")]
    monkeypatch.setattr("perpixel.build.evaluate_predictions", lambda *_, **__: {**SCORES, "unread": files})
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", "3", "--missing", "wrong")
    assert done.code == 2
    assert "2 files could not be read; 1 of them count as wrong in every pixel, 1 are left out of the" in done.err


def test_evaluate_masks_that_perpixel_refuses_show_what_others_print_and_why(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"mean_iou": 0.649, "printed": "64.90", "error": None, "toolkit": "mmseg", "why": "otherwise"}
    values = {"refused": "x.png: ids outside", "images": 2, "conventions": {"mmseg": entry}}
    monkeypatch.setattr("perpixel.build.evaluate_predictions", lambda *_, **__: values)
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", "3", "--all-conventions")
    assert done.code == 0
    assert "64.90" in done.out
    assert "perpixel itself gives these masks no score: x.png: ids outside" in done.out


def test_evaluate_masks_that_every_convention_asked_for_refuses_exit_2(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"mean_iou": None, "printed": "error", "error": "ids", "toolkit": "perpixel", "why": ""}
    values = {"refused": "x.png: ids outside", "images": 2, "conventions": {"perpixel": entry}}
    monkeypatch.setattr("perpixel.build.evaluate_predictions", lambda *_, **__: values)
    done = run_cli("evaluate", "--predictions", "p", "--targets", "t", "--labels", "3", "--convention", "perpixel")
    assert done.code == 2
    assert "x.png: ids outside" in done.err


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([], "MODEL and --data missing"),
        (["best"], "--data missing"),
        (["--data", "d"], "MODEL missing"),
        (["--predictions", "p"], "--targets and --labels missing"),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--crf"],
            "--crf needs the probabilities of a model",
        ),
        (["best", "--predictions", "p", "--targets", "t", "--labels", "2"], "MODEL does not go with saved masks"),
        (["best", "--data", "d", "--border-width", "-1"], "--border-width is a number of pixels"),
        (
            ["best", "--data", "d", "--against", "q", "--pattern", "x"],
            "--pattern and --against does not go with a model",
        ),
        (
            ["best", "--data", "d", "--trimap", "wide"],
            "--trimap is a list of widths in pixels such as 1,3,5, got 'wide'",
        ),
        (["best", "--data", "d", "--trimap", "-1"], "trimap_px is a distance in pixels, at least 0"),
        (["best", "--data", "d", "--convention", "mmseq"], "no convention 'mmseq'; did you mean 'mmseg'"),
        (["best", "--data", "d", "--convention", "mmseg", "--all-conventions"], "are two choices; give one"),
        (["best", "--data", "d", "--cityscapes"], "--cityscapes needs masks of Cityscapes' ids"),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--scales", "1"],
            "--scales does not go with saved masks",
        ),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--split", "test", "--device", "cpu"],
            "--split and --device does not go with saved masks",
        ),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--precision", "bf16", "--fallback", "ignore"],
            "--precision and --fallback does not go with saved masks",
        ),
        (["best", "--data", "d", "--fallback", "ignore"], "--fallback ignore is for pixels below"),
        (
            ["--predictions", "p", "--targets", "t", "--labels", "2", "--calibration"],
            "--calibration needs the probabilities of a model",
        ),
    ],
)
def test_evaluate_other_forms_are_refused(run_cli: Cli, calls: list[Any], tokens: list[str], message: str) -> None:
    done = run_cli("evaluate", *tokens)
    assert done.code == 2
    assert message in done.err
    assert not calls


@pytest.mark.parametrize(
    ("given", "crf"), [(["--crf"], True), (["--crf-set", "deeplab_v1"], "deeplab_v1"), (["--no-crf"], False)]
)
def test_evaluate_model_with_a_crf_asks_for_it(run_cli: Cli, calls: list[Any], given: list[str], crf: Any) -> None:
    assert run_cli("evaluate", "best", "--data", "d", *given).code == 0
    assert calls[0][1]["crf"] == crf


def test_predict_reports_images_rate_and_notes(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def fake(*given: Any, on_progress: Any, **options: Any) -> FakeReport:
        on_progress(FakeProgress(phase="predict"))
        made.append((given, options))
        return FakeReport()

    monkeypatch.setattr("perpixel.build.predict", fake)
    done = run_cli("predict", "best", "a.png", "--out", "o", "folder", "--no-overlays", "--json", "-")
    assert done.code == 0, done.err
    options = {"overlays": False, "device": "auto", "precision": "auto", "crf": False, "submit": None}
    assert made[0][0] == (Path("best"), ("a.png", "folder"), Path("o"))
    assert made[0][1] | options == made[0][1]
    assert "4 images predicted in 2.0 s, 2.0 per second; masks are in o" in done.err
    assert "two inputs share a name" in done.err
    assert done.json["images"] == 4


def test_predict_failures_exit_2_after_the_summary(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = FakeFailure(image=Path("x.png"), reason="x.png: truncated")
    monkeypatch.setattr("perpixel.build.predict", lambda *_, **__: FakeReport(failures=(failure,)))
    done = run_cli("predict", "best", "x.png", "--out", "o", "--json", "p.json")
    assert done.code == 2
    assert "1 of 5 images could not be predicted" in done.err
    assert "predictions.jsonl in o names every one:\n  x.png: truncated" in done.err
    assert json.loads(Path("p.json").read_text())["failures"] == [{"image": "x.png", "reason": "x.png: truncated"}]


def test_predict_without_inputs_is_refused(run_cli: Cli) -> None:
    done = run_cli("predict", "best", "--out", "o")
    assert done.code == 2
    assert "nothing to predict" in done.err


def test_evaluate_json_that_cannot_be_written_is_refused_before_the_work(
    run_cli: Cli, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    done = run_cli("evaluate", "best", "--data", "d", "--json", tmp_path / "file" / "deep" / "s.json")
    assert done.code == 2
    assert f"{tmp_path / 'file'} is a file, no folder; give another file name" in done.err
    monkeypatch.setattr("os.access", lambda *_: False)
    for target, place in ((tmp_path / "new" / "s.json", tmp_path), (tmp_path / "file", tmp_path / "file")):
        done = run_cli("evaluate", "best", "--data", "d", "--json", target)
        assert done.code == 2
        assert f"cannot be written: no rights to {place}; give another" in done.err
    assert not calls
