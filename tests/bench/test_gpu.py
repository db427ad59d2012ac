"""The GPU subset: what it needs, what it does with a part that fails, and that every part runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from perpixel.bench import gpu
from perpixel.bench.gpu_parts import PARTS
from perpixel.bench.results import read_report, row_of

ROOT = Path(__file__).parents[2]
UNWANTED = ("cyclopts", "pydantic", "rich", "matplotlib", "jinja2", "torchmetrics", "albumentations", "cv2")
WITHOUT = f"""
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {UNWANTED!r}:
            raise ImportError("refused: " + name)
        if root in ("torchvision", "segmentation_models_pytorch"):
            frame = sys._getframe(1)
            while frame and frame.f_globals.get("__name__", "").startswith("importlib"):
                frame = frame.f_back
            importer = frame.f_globals.get("__name__", "") if frame else ""
            if importer.partition(".")[0] in ("perpixel", "__main__"):
                raise ImportError("refused: " + name + " for " + importer)

sys.meta_path.insert(0, Refuse())
sys.argv = ["gpu.py", "--part", "roofline", "--device", "cpu", "--tiny", "--seconds", "5"]
runpy.run_path({str(ROOT / "benchmarks/gpu.py")!r}, run_name="__main__")
"""


def test_gpu_script_runs_a_part_without_the_packages_that_a_gpu_machine_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=200, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    names = [json.loads(line.removeprefix("row: "))["name"] for line in done.stdout.splitlines()]
    assert names == ["matmul, fp32", "matmul, bf16", "convolution, fp32", "convolution, bf16", "copy"]


def fake_parts(monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[str, int] | None]) -> list[float]:
    """Stands for the processes of parts: what they say and how they end; None takes too long."""
    given: list[float] = []

    class Fake:
        pid = 0

        def __init__(self, command: list[str], **_: Any) -> None:
            self.answer = answers[command[command.index("--part") + 1]]
            self.returncode = self.answer[1] if self.answer else -9

        def communicate(self, timeout: float | None = None) -> tuple[str, None]:
            if timeout is not None:
                given.append(timeout)
                if self.answer is None:
                    raise subprocess.TimeoutExpired("part", timeout)
            row = row_of("begun", {}, values={"n": 1})
            return (f"row: {json.dumps(row)}\n" if self.answer is None else self.answer[0]), None

    for module in ("environment", "results"):  # asks git
        monkeypatch.setattr(f"perpixel.bench.{module}.commit", lambda: "abc")
    monkeypatch.setattr(subprocess, "Popen", Fake)
    monkeypatch.setattr("os.killpg", lambda *_: None)
    return given


def test_part_that_fails_or_hangs_is_a_row_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = f"row: {json.dumps(row_of('good', {}, values={'n': 1}))}\nsomething else\n"
    fake_parts(monkeypatch, {"dfn": ("", 1), "icnet": None, "crf": (good, 0)})
    file = tmp_path / "gpu.json"
    report = gpu.measure_parts(["dfn", "icnet", "crf"], device="cpu", path=file, seconds=200, tiny=True)
    rows = {row["name"]: row["failed"] for row in read_report(file)["rows"]}
    assert list(rows) == ["dfn: the rest", "begun", "icnet: the rest", "good"]
    assert rows["dfn: the rest"].startswith("its process ended with 1")
    assert rows["icnet: the rest"].startswith("it took more than 80 s")
    assert rows["begun"] is None
    assert rows["good"] is None
    assert len(report.failed) == 2


def test_parts_without_time_left_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake_parts(monkeypatch, {"crf": ("", 0), "dfn": ("", 0)})
    gpu.measure_parts(["crf"], device="cpu", path=None, seconds=30, tiny=True)
    assert 29 < given[0] <= 30
    report = gpu.measure_parts(["dfn"], device="cpu", path=None, seconds=1, tiny=True)
    assert report.failed == ["dfn: the rest: no time was left; run it alone with --only"]


def test_parts_together_take_less_than_eight_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) < gpu.BUDGET_S


@pytest.mark.parametrize("arguments, message", [(["--only", "icnt"], "no part 'icnt'; did you mean 'icnet'?")])
def test_gpu_script_refuses_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([*arguments, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_script_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "torch sees no CUDA device here; --device cpu --tiny" in capsys.readouterr().err


def test_gpu_script_does_not_overwrite_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    file.write_text("{}", encoding="utf-8")
    assert gpu.main(["--device", "cpu", "--tiny", "--json", str(file)]) == 2
    assert "is not a file of benchmark results" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("part", list(PARTS))
def test_part_runs_at_tiny_sizes(part: str, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--only", part, "--device", "cpu", "--tiny", "--json", str(file)]) == 0
    rows = read_report(file)["rows"]
    assert rows
    assert not [row["failed"] for row in rows if row["failed"]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("part", list(PARTS))
def test_part_runs_on_a_gpu(part: str, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--only", part, "--tiny", "--json", str(file)]) == 0
