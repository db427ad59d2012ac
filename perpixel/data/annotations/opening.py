"""Opens what is to be converted: the files of an annotation tool, or any data set that perpixel reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perpixel.data.annotations.collected import Rest
from perpixel.data.annotations.rasterise import Rule
from perpixel.data.annotations.shapes import Order
from perpixel.data.annotations.tools import TOOLS, open_drawn
from perpixel.data.infer_labels import infer_labels
from perpixel.data.source import FORMATS, DataSource, open_data
from perpixel.errors import DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = ["Opened", "open_any"]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Data to convert."""

    source: DataSource
    labels: LabelSpace
    notes: tuple[str, ...]
    """What was decided on opening, beside the notes of the source."""


def open_any(
    data: str,
    format_name: str | None = None,
    *,
    images: Path | None = None,
    labels: str | None = None,
    order: Order | None = None,
    rest: Rest = "auto",
    rule: Rule = "centres",
    colors: bool = False,
) -> Opened:
    """Opens ``[format:]path`` with a format of `TOOLS` or of `FORMATS`, and says which classes it has.

    Args:
        data: Path, with the format before it or not.
        format_name: The format, in place of the prefix.
        images: Folder of the images of drawn labels.
        labels: What `LabelSpace.load` takes; None takes the data's own classes.
        order: Which of two overlapping shapes is seen; None goes by the tool.
        rest: What pixels are that no shape covers.
        rule: Which pixels a polygon covers.
        colors: The masks' colours are the labels.

    Raises:
        DataError: no such data or format, or the data is not as the format has it.
        InvalidValue: an option of drawn labels is given for a data set that has masks.
        ConfigError: ``labels`` names no label space.
    """
    tool, path = _tool_of(data, format_name)
    if tool is not None:
        if colors:
            raise InvalidValue(f"{data}: drawn labels have names, not colours; leave --colors away")
        space = None if labels is None else LabelSpace.load(labels)
        drawn = open_drawn(tool, path, images=images, labels=space, order=order, rest=rest, rule=rule)
        assert drawn.labels is not None
        return Opened(source=drawn, labels=drawn.labels, notes=())
    if images is not None or order is not None or rest != "auto" or rule != "centres":
        raise InvalidValue(
            f"{data}: --images, --order, --rest and --rule are for drawn labels; this data set has masks. For drawn "
            f"labels say which tool's: --from {'|'.join(TOOLS)}"
        )
    source = open_data(data if format_name is None else f"{format_name}:{data}")
    items = [item for split in source.splits.values() for item in split]
    found = infer_labels(items, labels, given=source.labels, mask_encoding="colors" if colors else "ids")
    return Opened(source=source, labels=found.labels, notes=found.notes)


def _tool_of(data: str, format_name: str | None) -> tuple[str | None, Path]:
    """Returns the annotation tool, None for a data set with masks, and the path."""
    if format_name is not None:
        if format_name not in TOOLS and format_name not in FORMATS:
            known = (*TOOLS, *sorted(FORMATS))
            raise DataError(
                f"there is no format {format_name!r}{nearest(format_name, known)}. Known: {', '.join(known)}."
            )
        return (format_name if format_name in TOOLS else None), Path(data).expanduser()
    prefix, colon, rest = data.partition(":")
    if colon and prefix in TOOLS and not Path(data).exists():
        if not rest:
            raise DataError(f"{data!r} names a format and no path; write {prefix}:PATH")
        return prefix, Path(rest).expanduser()
    return None, Path(data)
