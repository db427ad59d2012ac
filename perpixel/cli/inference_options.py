"""Words of the command line for inference: lists of scales, and sizes of tiles."""

from __future__ import annotations

from perpixel.errors import InvalidValue

__all__ = ["check_fallback", "parse_scales", "parse_tile"]


def check_fallback(fallback: str, thresholds: str | None) -> None:
    """Refuses a fallback that no pixel would need.

    Raises:
        InvalidValue: there are no thresholds to fall below.
    """
    if fallback != "next" and thresholds is None:
        raise InvalidValue(f"--fallback {fallback} is for pixels below their class's threshold; give --thresholds too")


def parse_scales(text: str | None) -> tuple[float, ...] | None:
    """Reads ``0.5,1,1.5``; None stays None.

    Raises:
        InvalidValue: something is not a number.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidValue(f"--scales is a list of numbers such as 0.5,1,1.5, got {text!r}") from error


def parse_tile(text: str | None) -> int | tuple[int, int] | None:
    """Reads ``512``, ``512,1024`` or ``512x1024`` (height, width); None stays None.

    Raises:
        InvalidValue: it is neither one whole number nor two.
    """
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.lower().replace("x", ",").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise InvalidValue(f"--tile is a number of pixels, or HEIGHT,WIDTH such as 512,1024, got {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
