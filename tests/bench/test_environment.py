from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perpixel.bench import environment


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "package").mkdir()
    for name in ("benchmarks/results/forward.json", "package/environment.py"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "environment.py"))
    return tmp_path


def test_commit_is_marked_where_files_but_results_have_changed(tree: Path) -> None:
    plain = git(tree, "rev-parse", "HEAD").strip()[:12]
    (tree / "benchmarks" / "results" / "forward.json").write_text("2")
    assert environment.commit() == plain
    (tree / "package" / "environment.py").write_text("2")
    assert environment.commit() == f"{plain}-dirty"


def test_commit_outside_of_git_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.commit() is None
