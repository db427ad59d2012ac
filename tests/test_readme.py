"""What README.md tells people to type is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import perpixel
from perpixel.cli import COMMANDS, create_app, main
from perpixel.labels import LabelSpace
from perpixel.recipes import RECIPES

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == language]


def commands() -> list[str]:
    lines = [line.partition("#")[0].partition(" > ")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line.startswith("perpixel ")]


def test_readme_has_commands_to_check() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", commands())
def test_readme_command_is_understood(command: str) -> None:
    tokens = shlex.split(command)[1:]
    assert tokens[0] in COMMANDS
    create_app(tokens).parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", [c for c in commands() if " show " in c or c.startswith("perpixel recipes")])
def test_readme_command_without_work_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out


def test_readme_names_every_recipe_and_model() -> None:
    text = README.read_text(encoding="utf-8")
    assert [name for name in (*RECIPES, *perpixel.list_models()) if f"`{name}`" not in text] == []


def test_readme_label_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    labels = LabelSpace.load(str(tmp_path / "labels.yaml"))
    assert labels.names == ("road", "car", "person")
    assert labels.ignored_ids == (0, 255)


def test_readme_python_uses_public_names_only() -> None:
    (code,) = blocks("python")
    compile(code, "README.md", "exec")
    assert set(re.findall(r"perpixel\.(\w+)", code)) <= set(perpixel.__all__)


def test_readme_files_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (README.parent / link).exists()] == []
