"""The errors' family, and the nearest known name."""

from __future__ import annotations

import pytest

from perpixel import errors
from perpixel.errors import InvalidValue, MissingExtra, PerpixelError, PerpixelWarning, nearest


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in ("PerpixelWarning", "nearest")])
def test_errors_are_perpixel_errors(name: str) -> None:
    assert issubclass(getattr(errors, name), PerpixelError)


def test_errors_are_what_python_code_catches() -> None:
    assert issubclass(InvalidValue, ValueError)
    assert issubclass(MissingExtra, ImportError)
    assert issubclass(PerpixelWarning, UserWarning)
    assert not issubclass(PerpixelWarning, PerpixelError)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("resnet81", ["resnet18", "vgg16"], "; did you mean 'resnet18'?"),
        ("dnf", {"dfn": 1, "fcn": 2}, "; did you mean 'dfn'?"),
        ("transformer", ["dfn", "fcn"], ""),
        ("dfn", [], ""),
        ("", ["dfn"], ""),
    ],
)
def test_nearest_offers_a_close_name_or_nothing(name: str, known: object, hint: str) -> None:
    assert nearest(name, known) == hint  # type: ignore[arg-type]
