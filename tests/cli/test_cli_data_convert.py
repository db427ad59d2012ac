"""``perpixel data`` and ``perpixel data convert`` as a user runs them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_fakes import Done
from PIL import Image

from perpixel.cli import create_app
from perpixel.cli.data import DATA_COMMANDS
from perpixel.data import open_data

Cli = Callable[..., Done]
PAGE = Path(__file__).parents[2] / "docs" / "annotations.md"
COMMANDS = re.findall(r"(?:^|`)perpixel (data convert [^`\n]*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A COCO file with two objects that overlap, and its image."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / "a.png")
    square = [1, 1, 5, 1, 5, 5, 1, 5]
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 3, "name": "car"}, {"id": 9, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [square]},
            {"id": 2, "image_id": 1, "category_id": 9, "segmentation": [[value + 2 for value in square]]},
            {"id": 3, "image_id": 1, "category_id": 9, "segmentation": [[1, 1, 2, 2]]},
        ],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def test_data_lists_its_commands_without_importing_any(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for tokens in (["data"], ["data", "--help"]):
        done = run_cli(*tokens)
        assert done.code == 0
        for name, (_, summary, _) in DATA_COMMANDS.items():
            assert any(f" {name} " in line and summary in line for line in done.out.splitlines())


def test_data_help_loads_neither_torch_nor_commands() -> None:
    targets = [target.partition(":")[0] for target, _, _ in DATA_COMMANDS.values()]
    code = (
        "import sys; from perpixel.cli import main; code = main(['data', '--help']); "
        f"assert not {{'torch', *{targets!r}}} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_data_convert_runs_without_torch(drawn: Path, tmp_path: Path) -> None:
    tokens = ["data", "convert", f"coco:{drawn}/a.json", "--to", "folder", "--out", str(tmp_path / "out")]
    code = (
        f"import sys; from perpixel.cli import main; code = main({tokens!r}); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_data_convert_help_describes_its_options(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = run_cli("data", "convert", "--help")
    assert done.code == 0
    assert "Usage: perpixel data convert DATA --to" in done.out
    assert "area (small over large)" in done.out


def test_data_convert_to_a_folder_tells_and_writes_what_was_done(run_cli: Cli, drawn: Path) -> None:
    done = run_cli("data", "convert", f"coco:{drawn}/a.json", "--to", "folder", "--out", "out", "--json", "out.json")
    assert (done.code, done.err) == (0, "")
    assert "1 polygons with fewer than 3 points, which cover no pixel, were left out: annotation 3 on a.png" in done.out
    assert "where shapes overlap: as in the file, later shapes over earlier ones" in done.out
    assert "overlap on 4 pixels of 1 images" in done.out
    assert "1 images converted to folder" in done.out
    source = open_data(Path("out"))
    assert source.labels is not None and source.labels.names == ("background", "car", "tree")
    written = json.loads(Path("out.json").read_text())
    assert written["images"] == {"all": 1}
    assert written["overlapped_pixels"] == 4
    assert written["classes"][1] == {"name": "car", "pixels": 12, "images": 1}
    assert (written["out"], written["to"], written["ignored_pixels"]) == ("out", "folder", 0)


def test_data_convert_goes_round_all_formats(run_cli: Cli, drawn: Path) -> None:
    assert run_cli("data", "convert", drawn / "a.json", "--from", "coco", "--to", "folder", "--out", "a").code == 0
    assert run_cli("data", "convert", "a", "--to", "coco", "--out", "b", "--shapes", "polygons").code == 0
    assert run_cli("data", "convert", "coco:b", "--to", "labelme", "--out", "c").code == 0
    assert run_cli("data", "convert", "c", "--from", "labelme", "--to", "folder", "--out", "d").code == 0
    with Image.open("a/masks/a.png") as first, Image.open("d/masks/a.png") as last:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(last))
    assert Path("a/labels.yaml").read_text() == Path("d/labels.yaml").read_text()


def test_data_convert_masks_of_colors_and_of_single_classes(run_cli: Cli, tmp_path: Path) -> None:
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[:4, :5] = (9, 8, 7)
    for folder in ("images", "masks"):
        (tmp_path / "colored" / folder).mkdir(parents=True)
        Image.fromarray(rgb).save(tmp_path / "colored" / folder / "a.png")
    Path("own.yaml").write_text("names: [dark, light]\ncolors: [[0, 0, 0], [9, 8, 7]]\nignore_color: [1, 1, 1]\n")
    done = run_cli(
        "data",
        "convert",
        "colored",
        "--colors",
        "--labels",
        "own.yaml",
        "--to",
        "folder",
        "--out",
        "a",
        "--place",
        "link",
    )
    assert done.code == 0, done.err
    for name in ("dark", "light"):
        (tmp_path / "single" / "masks" / name).mkdir(parents=True)
        bits = (rgb[..., 0] == 9) == (name == "light")
        Image.fromarray(bits).save(tmp_path / "single" / "masks" / name / "a.png")
    (tmp_path / "single" / "images").symlink_to(tmp_path / "colored" / "images")
    done = run_cli("data", "convert", "class_folders:single", "--to", "folder", "--out", "b")
    assert done.code == 0, done.err
    with Image.open("a/masks/a.png") as first, Image.open("b/masks/a.png") as last:
        np.testing.assert_array_equal(np.asarray(first), rgb[..., 0] == 9)
        np.testing.assert_array_equal(np.asarray(last), 1 + (rgb[..., 0] == 9))


@pytest.mark.parametrize(
    "tokens, message",
    [
        (["--to", "folder", "--out", "x", "--crowd"], "--shapes and --crowd say how"),
        (["--to", "labelme", "--out", "x", "--crowd"], "--crowd is COCO's"),
        (["--to", "folder", "--out", "drawn"], "is there already and nothing is overwritten"),
        (["--to", "voc", "--out", "x"], "voc"),
        (["--to", "folder"], "--out"),
        (["--to", "folder", "--out", "x", "--from", "cocoo"], "did you mean 'coco'"),
    ],
)
def test_data_convert_mistakes_exit_2_and_write_nothing(
    run_cli: Cli, drawn: Path, tokens: list[str], message: str
) -> None:
    data = drawn / "a.json" if "--from" in tokens else f"coco:{drawn}/a.json"
    done = run_cli("data", "convert", data, *tokens)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert sorted(path.name for path in Path().iterdir()) == ["drawn"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_are_understood(command: str) -> None:
    tokens = shlex.split(command)
    function, bound, _ = create_app(tokens).parse_args(tokens, exit_on_error=False, print_error=False)
    assert callable(function)
    assert bound.arguments  # what was typed has arrived


def test_page_has_a_command_for_each_tool() -> None:
    assert {
        tool for tool in ("coco", "cvat", "labelme", "yolo") if any(f"{tool}:" in command for command in COMMANDS)
    } == {
        "coco",
        "cvat",
        "labelme",
        "yolo",
    }
    assert len(COMMANDS) == 12
