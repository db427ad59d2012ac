"""The images that changed most between two runs: both predictions, the truth, and where they differ.

Shapes: H W image. Train ids are uint8, 255 is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.labels import LabelSpace
from perpixel.metrics.image_changes import ImageChange
from perpixel.report.pictures import IGNORED_COLOR, flat_uri, load_image, load_mask, pale, photo_uri
from perpixel.report.read_run import RunRecord

__all__ = [
    "BOTH_WRONG_COLOR",
    "GAINED_COLOR",
    "LOST_COLOR",
    "ChangeCard",
    "ChangeGroup",
    "change_groups",
    "difference_map",
]

GAINED_COLOR = (29, 95, 208)
"""Pixels that only the first run has right."""
LOST_COLOR = (225, 29, 72)
"""Pixels that only the second run has right."""
BOTH_WRONG_COLOR = (226, 160, 20)
"""Pixels that both have wrong."""
_PER_GROUP = 3


@dataclass(frozen=True, kw_only=True)
class ChangeCard:
    """One image in both runs; a picture that cannot be shown is None and ``problems`` says why."""

    name: str
    change: ImageChange
    image: str | None
    truth: str | None
    first: str | None
    second: str | None
    difference: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ChangeGroup:
    """Images that changed in one direction, the largest change first."""

    title: str
    cards: tuple[ChangeCard, ...]


def change_groups(run: RunRecord, other: RunRecord, images: Sequence[ImageChange]) -> list[ChangeGroup]:
    """Returns the images that gained and lost most, of those whose masks both runs saved.

    Args:
        run: The first run.
        other: The second, of the same images.
        images: By falling change.
    """
    ours, theirs = (_by_name(record) for record in (run, other))
    shown = [image for image in images if image.name in ours and image.name in theirs]
    gained = [image for image in shown if image.change > 0][:_PER_GROUP]
    lost = [image for image in reversed(shown) if image.change < 0][:_PER_GROUP]
    titles = {f"Where {run.name} gains most": gained, f"Where {run.name} loses most": lost}
    return [
        ChangeGroup(
            title=title, cards=tuple(_card(run, other, image, ours[image.name], theirs[image.name]) for image in chosen)
        )
        for title, chosen in titles.items()
        if chosen
    ]


def _by_name(run: RunRecord) -> dict[str, Mapping[str, Any]]:
    return {} if run.labels is None else {str(entry.get("name")): entry for entry in run.images}


def _card(
    run: RunRecord, other: RunRecord, change: ImageChange, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> ChangeCard:
    problems: list[str] = []
    image, head = load_image(run.path, ours, problems)
    truth, first, second = (
        None if record.labels is None else load_mask(record, record.labels, entry, key, like, problems)
        for record, entry, key, like in (
            (run, ours, "target", head),
            (run, ours, "prediction", None),
            (other, theirs, "prediction", None),
        )
    )
    shapes = {part.shape[:2] for part in (image, truth, first, second) if part is not None}
    difference = None
    if len(shapes) > 1:
        problems.append("image, truth and predictions have different sizes: " + ", ".join(map(str, sorted(shapes))))
    elif truth is not None and first is not None and second is not None:
        difference = difference_map(image, truth, first, second)
    painted = [
        None if ids is None or run.labels is None else flat_uri(run.labels.colorize(ids))
        for ids in (truth, first, second)
    ]
    return ChangeCard(
        name=change.name,
        change=change,
        image=None if image is None else photo_uri(image),
        truth=painted[0],
        first=painted[1],
        second=painted[2],
        difference=None if difference is None else photo_uri(difference, enlarged=True),
        problems=tuple(problems),
    )


def difference_map(
    image: NDArray[np.uint8] | None,
    truth: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Paints over a pale image (H, W, 3) which of the two predictions is right, where not both are."""
    canvas = pale(image, truth.shape)
    valid = truth != LabelSpace.ignore_index
    right, also_right = first == truth, second == truth
    canvas[~valid] = IGNORED_COLOR
    canvas[valid & right & ~also_right] = GAINED_COLOR
    canvas[valid & ~right & also_right] = LOST_COLOR
    canvas[valid & ~right & ~also_right] = BOTH_WRONG_COLOR
    return canvas
