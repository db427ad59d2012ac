"""The public names of ``perpixel``: a removal or an addition is a deliberate edit here."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import perpixel

PUBLIC = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InvalidValue",
    "LabelSpace",
    "MissingExtra",
    "PerpixelError",
    "PerpixelWarning",
    "Preprocessing",
    "RunError",
    "SegOutput",
    "Term",
    "create_model",
    "evaluate",
    "import_checkpoint",
    "import_weights",
    "list_models",
    "load",
    "predict",
    "train",
]


def test_public_names_are_the_listed_ones() -> None:
    assert sorted(perpixel.__all__) == PUBLIC
    assert dir(perpixel) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_importable_and_documented(name: str) -> None:
    value = getattr(perpixel, name)
    assert inspect.getdoc(value)
    assert getattr(value, "__module__", "perpixel").startswith("perpixel")


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deeplab'"):
        _ = perpixel.deeplab


def test_star_import_gives_the_public_names() -> None:
    code = "from perpixel import *; import perpixel; assert all(name in globals() for name in perpixel.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_version_is_a_release_number() -> None:
    assert all(part.isdigit() for part in perpixel.__version__.split("."))
