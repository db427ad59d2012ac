"""Lists of scales and sizes of tiles, as the command line takes them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fakes import Done

from perpixel.cli.inference_options import parse_scales, parse_tile
from perpixel.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "scales"), [(None, None), ("1", (1.0,)), ("0.5,1, 1.75", (0.5, 1.0, 1.75)), ("0.5,", (0.5,)), ("", ())]
)
def test_parse_scales_reads_numbers(text: str | None, scales: Any) -> None:
    assert parse_scales(text) == scales


@pytest.mark.parametrize(
    ("text", "tile"), [(None, None), ("512", 512), ("512,1024", (512, 1024)), ("512x1024", (512, 1024)), ("0", 0)]
)
def test_parse_tile_reads_one_side_or_two(text: str | None, tile: Any) -> None:
    assert parse_tile(text) == tile


def test_parse_scales_of_words_refused() -> None:
    with pytest.raises(InvalidValue, match=r"--scales is a list of numbers such as 0\.5,1,1\.5, got '0\.5;1'"):
        parse_scales("0.5;1")


@pytest.mark.parametrize("text", ["large", "1,2,3", "", "0.5"])
def test_parse_tile_of_something_else_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=f"--tile is a number of pixels, or HEIGHT,WIDTH such as .*, got '{text}'"):
        parse_tile(text)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], {"protocol": None, "scales": None, "flip": None, "tile": None}),
        (
            ["--protocol", "semseg:ade20k150", "--scales", "0.5,1", "--no-flip", "--tile", "64,32"],
            {"protocol": "semseg:ade20k150", "scales": (0.5, 1.0), "flip": False, "tile": (64, 32)},
        ),
        (["--flip"], {"flip": True}),
    ],
)
def test_predict_hands_on_how_images_are_seen(
    run_cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, given: list[str], asked: dict[str, Any]
) -> None:
    made: list[dict[str, Any]] = []

    def fake(*_: Any, **options: Any) -> Any:
        made.append(options)
        return SimpleNamespace(images=1, pixels=1, seconds=1.0, notes=(), failures=(), submission=None)

    monkeypatch.setattr("perpixel.build.predict", fake)
    done = run_cli("predict", "best", "a.png", "--out", "o", *given)
    assert done.code == 0, done.err
    assert made[0] | asked == made[0]


def test_predict_scales_of_words_exit_2(run_cli: Callable[..., Done]) -> None:
    done = run_cli("predict", "best", "a.png", "--out", "o", "--scales", "many")
    assert done.code == 2
    assert "--scales is a list of numbers" in done.err
