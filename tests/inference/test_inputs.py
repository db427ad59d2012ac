"""Which images a command line names, and what their results are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpixel.errors import DataError
from perpixel.inference import collect_inputs
from perpixel.inference.inputs import find_inputs, output_names


@pytest.fixture
def folder(tmp_path):
    for name in ("frame10.png", "frame2.png", "Frame1.JPG", "sub/deep/x.tif", "notes.txt", ".hidden.png", ".git/a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def names_below(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def test_collect_inputs_folder_gives_images_in_natural_order(folder):
    expected = ["Frame1.JPG", "frame2.png", "frame10.png", "sub/deep/x.tif"]
    assert names_below(folder, collect_inputs([folder])) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["frame2.png", "frame10.png"]),
        ("**/*.tif", ["sub/deep/x.tif"]),
        ("frame?.*", ["frame2.png"]),
        ("s*/*/x.*", ["sub/deep/x.tif"]),
    ],
)
def test_collect_inputs_glob_gives_matches(folder, pattern, expected):
    assert names_below(folder, collect_inputs([f"{folder}/{pattern}"])) == expected


def test_collect_inputs_relative_glob_searches_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert collect_inputs(["frame*.png"]) == [Path("frame2.png"), Path("frame10.png")]


def test_collect_inputs_single_file_is_taken_whatever_its_suffix_and_once(folder):
    notes = folder / "notes.txt"
    assert collect_inputs([notes, str(notes), folder / "sub" / ".." / "notes.txt"]) == [notes]


def test_collect_inputs_file_named_like_a_pattern_is_a_file(tmp_path):
    path = tmp_path / "a[1].png"
    path.touch()
    assert collect_inputs([path]) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "absent.png",
            r"absent\.png: there is no such file or folder; folders and patterns are searched for \.png, \.jpg",
        ),
        ("*.bmp", r"\*\.bmp: the pattern matches no image file .* under "),
        ("empty", "empty: the folder and its subfolders hold no image file"),
    ],
)
def test_collect_inputs_nothing_found_says_what_was_looked_for(folder, text, message):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        collect_inputs([f"{folder}/{text}"])


def test_collect_inputs_without_inputs_refused():
    with pytest.raises(DataError, match="no inputs: name at least one image"):
        collect_inputs([])


def test_find_inputs_results_of_an_earlier_run_are_no_inputs(folder):
    earlier = folder / "out" / "frame2.png"
    earlier.parent.mkdir()
    earlier.touch()
    assert earlier not in [file.path for file in find_inputs([folder], out=folder / "out")]
    assert earlier in collect_inputs([folder])


def test_find_inputs_folder_that_is_also_the_output_refused(folder):
    with pytest.raises(DataError, match="photos is both input and output"):
        find_inputs([folder], out=folder)


def test_output_names_keep_folders_below_the_input(folder):
    names, notes = output_names(find_inputs([folder]))
    assert names == ["Frame1", "frame2", "frame10", "sub/deep/x"]
    assert notes == []


def test_output_names_shared_stem_keeps_the_suffix_and_says_so(tmp_path):
    for name in ("a.png", "A.jpg", "b.png"):
        (tmp_path / name).touch()
    names, notes = output_names(find_inputs([tmp_path]))
    assert sorted(names) == ["A.jpg", "a.png", "b"]
    assert len(notes) == 2
    assert "A.jpg: results are named 'A.jpg', because several inputs share the name 'A'" in "\n".join(notes)


def test_output_names_same_file_name_in_two_folders_takes_the_folder_then_a_number(tmp_path):
    folders = [tmp_path / "x" / "one", tmp_path / "y" / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    names, notes = output_names(find_inputs(folders))
    assert names == ["one/a.png", "one/a.png-2", "two/a.png"]
    assert len(notes) == 3


def test_collect_inputs_links_are_followed_and_those_that_lead_nowhere_kept(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "a.png").touch()
    searched = tmp_path / "in"
    searched.mkdir()
    (searched / "linked").symlink_to(tmp_path / "real")
    (searched / "round").symlink_to(searched)
    (searched / "gone.png").symlink_to(tmp_path / "nothing.png")
    found = collect_inputs([searched])
    assert [path.relative_to(searched).as_posix() for path in found] == ["gone.png", "linked/deep/a.png"]


def test_collect_inputs_link_with_a_name_of_its_own_is_an_image_of_its_own(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert names_below(tmp_path, collect_inputs([tmp_path, tmp_path / "a.png"])) == ["a.png", "b.png"]
