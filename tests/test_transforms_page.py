"""docs/transforms.md shows every transform, and its pictures are drawn by the command beside it."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel.config import AugmentChoice
from perpixel.data.augment.settings import Augment

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "transforms.md").read_text(encoding="utf-8")
LARGEST_PICTURE = 20_000


@pytest.fixture(scope="module")
def figures() -> Any:
    spec = importlib.util.spec_from_file_location("transforms_figures", DOCS / "transforms_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_transforms_page_has_a_picture_of_each_transform(figures: Any) -> None:
    for name in figures.EXAMPLES:
        picture = DOCS / "images" / f"transform_{name}.jpg"
        assert 0 < picture.stat().st_size < LARGEST_PICTURE
        assert f"](images/{picture.name})" in PAGE


def test_transforms_page_names_every_key_of_augment() -> None:
    for field in dataclasses.fields(Augment):
        assert f"`{field.name}" in PAGE or f"\n## {field.name}" in PAGE, field.name


def test_augment_choice_has_the_keys_and_defaults_of_augment() -> None:
    built = {field.name: field.default for field in dataclasses.fields(Augment)}
    assert AugmentChoice().model_dump() == built


@pytest.mark.parametrize("name", ["affine", "mosaic", "cutout", "blur"])
def test_transforms_figure_shows_something_else_than_the_plain_window(figures: Any, name: str) -> None:
    (plain, _), (first, _), (second, _) = figures.panels(name)
    assert plain.shape == first.shape == (figures.SIDE, figures.SIDE, 3)
    assert (plain != first).any()
    assert (first != second).any()
    assert np.array(figures.draw(name)).shape[0] == figures.SIDE + 2 * figures.GAP
