"""docs/evaluation.md explains every convention with a picture, and its numbers are what the code prints."""

import importlib.util
import json
from pathlib import Path

import pytest

from perpixel.metrics import CONVENTIONS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "evaluation.md").read_text(encoding="utf-8")
STORED = Path(__file__).parent / "reference" / "scores" / "conventions_expected.json"
LARGEST_PICTURE = 20_000


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("evaluation_figures", DOCS / "evaluation_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_evaluation_page_has_a_picture_and_an_example_for_each_convention(figures):
    assert list(figures.EXAMPLES) == list(CONVENTIONS)
    for name in CONVENTIONS:
        picture = DOCS / "images" / f"convention_{name}.png"
        assert 0 < picture.stat().st_size < LARGEST_PICTURE
        assert f"](images/{picture.name})" in PAGE


@pytest.mark.parametrize("name", CONVENTIONS)
def test_evaluation_page_states_the_numbers_of_its_picture(figures, name):
    section = PAGE.split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
    values = figures.printed(name)
    if values["perpixel"] == "error":
        assert "perpixel refuses" in section
    else:
        assert f"perpixel {values['perpixel']}" in section
    text = section.split(".png)")[1]
    assert text.strip().startswith(values[name])
    assert values["perpixel"] == "error" or values["perpixel"] in text


def test_evaluation_figure_is_drawn_with_its_maps(figures):
    picture = figures.draw("monai").convert("RGB")
    assert set(figures._COLORS[:2]) <= {color for _, color in picture.getcolors()}


def test_evaluation_page_table_is_the_stored_one():
    expected = json.loads(STORED.read_text(encoding="utf-8"))
    rows = [
        [f"{v:.2f}" if isinstance(v, float) else str(v) for v in values.values()]
        for values in expected["values"].values()
    ]
    for row in rows:
        assert f" | {' | '.join(row)} |" in PAGE
