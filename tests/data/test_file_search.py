"""files_below: links are followed once, hidden files are left out, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.file_search import files_below


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in files_below(folder))


def test_files_below_links_are_followed_and_never_round(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x.txt").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a" / "deep")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert found(tmp_path) == ["a/deep/x.txt", "b/x.txt", "gone"]


def test_files_below_linked_folder_itself_is_searched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert found(tmp_path / "link") == ["x.txt"]


def test_files_below_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    for name in ("x.txt", ".y.txt", ".hidden/z.txt"):
        (tmp_path / name).touch()
    assert found(tmp_path) == ["x.txt"]
