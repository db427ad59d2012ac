"""Training and validation parts of undivided data: stratified by the classes that the images hold, seeded, storable.

Shapes: N images, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perpixel.data.formats.item import Item, listed
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["load_split", "make_split", "save_split"]

_MOST_REPAIRS = 2000
_RANDOM_MOVES = 0.2  # share of repairs that move any image of the class, to leave dead ends


def make_split(
    items: Sequence[Item],
    labels: LabelSpace,
    *,
    class_presence: NDArray[np.bool_],
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, tuple[Item, ...]]:
    """Divides items into ``train`` and ``val`` so that every class lands in both, as nearly in proportion as it goes.

    Iterative stratification (Sechidis et al., ECML PKDD 2011): the rarest class first, each of its images to the part
    that still wants it most. Then images are moved until each class of two or more images is in both parts and each
    class of one image in ``train``; ``val`` grows where that needs it. Where it is impossible (three images, every two
    of which alone share a class), the best division found is returned and training keeps the class.

    Args:
        items: What is divided; the order within the parts stays.
        labels: Names the classes of ``class_presence``.
        class_presence: (N, K), whether an image holds a class, as `SplitSummary` gives it.
        val_share: Wanted share of ``val``, in (0, 1).
        seed: Same seed, items and presence: same split.

    Raises:
        InvalidValue: the share or the shape of ``class_presence`` is wrong.
        DataError: there are fewer than two images.
    """
    if not 0 < val_share < 1:
        raise InvalidValue(f"val_share must lie between 0 and 1, got {val_share}")
    if class_presence.shape != (len(items), labels.num_classes):
        raise InvalidValue(
            f"class_presence has shape {class_presence.shape}, {len(items)} images and {labels.num_classes} classes "
            f"need ({len(items)}, {labels.num_classes})"
        )
    if len(items) < 2:
        raise DataError(f"{len(items)} image cannot be divided into train and val; add images, or give a val split")
    random = np.random.default_rng(seed)
    presence = class_presence.astype(np.int64)
    in_val = _stratified(presence, val_share, random)
    in_val = _repaired(presence, in_val, val_share, random)
    return {
        "train": tuple(item for item, val in zip(items, in_val, strict=True) if not val),
        "val": tuple(item for item, val in zip(items, in_val, strict=True) if val),
    }


def save_split(path: str | Path, splits: Mapping[str, Sequence[Item]]) -> None:
    """Writes the names of every split as JSON, for `load_split`."""
    names = {split: [item.name for item in items] for split, items in splits.items()}
    Path(path).write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_split(path: str | Path, items: Sequence[Item]) -> dict[str, tuple[Item, ...]]:
    """Divides items as a stored split says.

    Raises:
        DataError: the file is none of `save_split`, or items and names do not cover each other exactly.
    """
    path = Path(path)
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a split: {error}; remove the file to divide anew") from error
    if not isinstance(names, dict) or not all(
        isinstance(split, list) and all(isinstance(name, str) for name in split) for split in names.values()
    ):
        raise DataError(
            f"{path}: a split file maps each split to a list of image names; remove the file to divide anew"
        )
    by_name = {item.name: item for item in items}
    wanted = [name for split in names.values() for name in split]
    gone = sorted(set(wanted) - set(by_name))
    new = sorted(set(by_name) - set(wanted))
    repeated = sorted({name for name in wanted if wanted.count(name) > 1}) if len(set(wanted)) < len(wanted) else []
    for what, which in (("are not in the data", gone), ("are in no split", new), ("are in several splits", repeated)):
        if which:
            raise DataError(
                f"{path}: {len(which)} images {what}: {listed(which)}. The split belongs to other data; remove the "
                "file to divide anew."
            )
    return {split: tuple(by_name[name] for name in split_names) for split, split_names in names.items()}


def _stratified(presence: NDArray[np.int64], val_share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Assigns every image, rarest remaining class first; column 0 of the demands is train, 1 is val."""
    count = len(presence)
    shares = np.array([1 - val_share, val_share])
    wanted_images = shares * count
    wanted = presence.sum(0)[:, None] * shares  # (K, 2)
    in_val = np.zeros(count, dtype=bool)
    open_images = np.ones(count, dtype=bool)
    order = random.permutation(count)
    while open_images.any():
        remaining = presence[open_images].sum(0)
        if remaining.any():
            rarest = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
            chosen = [i for i in order if open_images[i] and presence[i, rarest]]
        else:
            rarest = None
            chosen = [i for i in order if open_images[i]]
        for i in chosen:
            class_demand = (0.0, 0.0) if rarest is None else wanted[rarest]
            # A tie goes to train: a class of one image can be learned, but not be scored alone.
            to_val = (class_demand[1], wanted_images[1]) > (class_demand[0], wanted_images[0])
            in_val[i], open_images[i] = to_val, False
            wanted_images[int(to_val)] -= 1
            wanted[:, int(to_val)] -= presence[i]
    return in_val


def _repaired(
    presence: NDArray[np.int64], in_val: NDArray[np.bool_], val_share: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Moves single images until no class lacks a side, by a random walk over the classes that do."""
    total = presence.sum(0)
    target = max(1, round(val_share * len(presence)))
    current = in_val.copy()
    best, best_cost = current.copy(), _cost(presence[current].sum(0), total, int(current.sum()), len(presence), target)
    for _ in range(_MOST_REPAIRS):
        in_val_count = presence[current].sum(0)
        size = int(current.sum())
        cost = _cost(in_val_count, total, size, len(presence), target)
        if cost < best_cost:
            best, best_cost = current.copy(), cost
        movable = _movable(presence, current, in_val_count, total)
        if len(movable) == 0:
            break
        candidates = movable[int(random.integers(len(movable)))]
        if random.random() < _RANDOM_MOVES:
            moved = int(random.choice(candidates))
        else:
            costs = []
            for i in random.permutation(candidates):
                step = -1 if current[i] else 1
                costs.append((_cost(in_val_count + step * presence[i], total, size + step, len(presence), target), i))
            moved = int(min(costs, key=lambda entry: entry[0])[1])
        current[moved] = not current[moved]
    return best


def _cost(
    in_val: NDArray[np.int64], total: NDArray[np.int64], size: int, count: int, target: int
) -> tuple[bool, int, int, int]:
    """Ranks a division: an empty part, classes that train lacks, classes that val lacks, val's size error."""
    train_lacks = int(((total > 0) & (in_val == total)).sum())
    val_lacks = int(((total > 1) & (in_val == 0)).sum())
    return size in (0, count), train_lacks, val_lacks, abs(size - target)


def _movable(
    presence: NDArray[np.int64], in_val: NDArray[np.bool_], in_val_count: NDArray[np.int64], total: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Returns, for each class that lacks a side, its images; where a part is empty, all images at once."""
    if in_val.all() or not in_val.any():
        return [np.arange(len(in_val))]
    lacking = np.flatnonzero(((total > 0) & (in_val_count == total)) | ((total > 1) & (in_val_count == 0)))
    return [np.flatnonzero(presence[:, k]) for k in lacking]
