"""``perpixel import``, ``verify`` and ``report``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Done

from perpixel.errors import CheckpointError
from perpixel.labels import LabelSpace
from perpixel.models import DFNConfig, create_model
from perpixel.weights import LoadReport, Row, Verification

Cli = Callable[..., Done]


REPORT = LoadReport(
    family="torchseg/dfn", matched=("a", "b"), renamed=(), left_over=(), missing=(), ignored=(), options={"x": True}
)
TWO_CLASSES = LabelSpace.numbered(2)


@dataclass(frozen=True, kw_only=True)
class FakeImported:
    network: Any = field(
        default_factory=lambda: create_model("dfn", DFNConfig.small(), num_classes=2, backbone="resnet18")
    )
    report: LoadReport = REPORT
    labels: LabelSpace = TWO_CLASSES


def test_import_saves_a_model_and_prints_the_load_report(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from perpixel.weights import load_artifact

    asked: list[Any] = []

    def fake(file: Path, family: str, *, labels: str | None, **options: Any) -> FakeImported:
        asked.append((file, family, labels, options))
        return FakeImported()

    monkeypatch.setattr("perpixel.weights.import_checkpoint", fake)
    done = run_cli("import", "d/x.pth", "--from", "torchseg/dfn", "align=true", "--labels", "2", "--out", "m", "rate=3")
    assert done.code == 0, done.err
    assert asked == [(Path("d/x.pth"), "torchseg/dfn", "2", {"align": True, "rate": 3})]
    assert "2 tensors matched" in done.out
    assert "perpixel predict m IMAGE" in done.out
    assert load_artifact("m").provenance["imported_from"] == "x.pth"
    again = run_cli("import", "d/y.pth", "--out", "m")
    assert again.code == 2
    assert "--out m holds a model already" in again.err
    assert len(asked) == 1
    assert run_cli("import", "d/y.pth", "--out", "m", "--overwrite").code == 0
    assert load_artifact("m").provenance["imported_from"] == "y.pth"


@pytest.mark.parametrize(
    "tokens, message",
    [
        (["align"], "option 'align': write option=value"),
        (["a.b=1"], "option 'a.b=1': write option=value"),
        (["bins=[1]", "bins=[2]"], "option 'bins=[2]': bins is given twice; give it once"),
    ],
)
def test_import_malformed_option_is_refused(run_cli: Cli, tokens: list[str], message: str) -> None:
    done = run_cli("import", "x.pth", *tokens, "--out", "m")
    assert done.code == 2
    assert message in done.err


def verification(path: Path, error: float | None) -> Verification:
    if error is None:
        return Verification(path=path, kind="crf", rows=(), skipped="no checker")
    return Verification(path=path, kind="losses", rows=(Row(name="loss", error=error, tolerance=1e-9),))


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | Exception | None]:
    """Errors of the vectors a, b… below whatever is asked for."""
    errors: dict[str, float | Exception | None] = {}

    def fake(path: Path) -> Verification:
        error = errors[path.name]
        if isinstance(error, Exception):
            raise error
        return verification(path, error)

    monkeypatch.setattr("perpixel.weights.find_vectors", lambda paths: [p / name for p in paths for name in errors])
    monkeypatch.setattr("perpixel.weights.verify", fake)
    return errors


def test_verify_all_equal_exits_0(run_cli: Cli, vectors: dict[str, Any]) -> None:
    vectors |= {"a": 1e-12, "b": None}
    done = run_cli("verify", "v", "--json", "v.json")
    assert done.code == 0
    assert "v/a: passed, 1 of 1 outputs equal; largest error 1.00e-12" in done.out
    assert done.out.endswith("1 passed, 0 failed, 1 skipped\n")
    found = json.loads(Path("v.json").read_text())
    assert [vector["status"] for vector in found["vectors"]] == ["passed", "skipped"]
    assert found["vectors"][0]["rows"][0]["error"] == 1e-12


@pytest.mark.parametrize("error", [1e-3, float("inf"), CheckpointError("damaged")])
def test_verify_any_failure_exits_1_after_all_were_checked(run_cli: Cli, vectors: dict[str, Any], error: Any) -> None:
    vectors |= {"a": error, "b": 0.0}
    done = run_cli("verify", "v", "--json", "v.json")
    assert done.code == 1
    assert "v/a: failed" in done.out
    assert done.out.endswith("1 passed, 1 failed, 0 skipped\n")
    assert json.loads(Path("v.json").read_text())["failed"] == 1


def test_verify_without_path_takes_the_variable(
    run_cli: Cli, vectors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors["a"] = 0.0
    monkeypatch.setenv("PERPIXEL_REFERENCE", "elsewhere")
    assert "elsewhere/a: passed" in run_cli("verify").out


def test_verify_without_path_takes_the_repositorys_vectors(run_cli: Cli, vectors: dict[str, Any]) -> None:
    vectors["a"] = 0.0
    Path("tests/reference").mkdir(parents=True)
    assert "tests/reference/a: passed" in run_cli("verify").out


def test_verify_without_path_and_vectors_says_where_it_looked(run_cli: Cli) -> None:
    done = run_cli("verify")
    assert done.code == 2
    assert "set PERPIXEL_REFERENCE" in done.err


def test_report_names_the_file(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fake(run: Path, other: Path | None) -> Path:
        asked.append((run, other))
        return run / "report.html"

    monkeypatch.setattr("perpixel.report.write_report", fake)
    assert run_cli("report", "r").out == "report: r/report.html\n"
    assert run_cli("report", "r", "s").code == 0
    assert asked == [(Path("r"), None), (Path("r"), Path("s"))]
