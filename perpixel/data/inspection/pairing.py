"""Which mask belongs to which image, without stopping at the first that has none."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.folders import IMAGE_ENDINGS, MASK_ENDINGS
from perpixel.data.formats.item import listed
from perpixel.data.inspection.collector import Collector, shown_path
from perpixel.data.inspection.folder_files import FolderFiles
from perpixel.data.picture import PixelSource

__all__ = ["Pair", "Pairing", "pair_files"]

_LOOKED_AT = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An image and its mask as far as they are there."""

    split: str
    name: str
    image: PixelSource | None
    """None where it cannot be opened, as was said."""
    mask: PixelSource | None
    """None where there is none, or it cannot be opened, as was said."""
    image_file: str
    """As findings name it; also of an image that cannot be opened."""
    mask_file: str | None
    sound: bool = True
    """Whether image and mask are there and the reader of the format takes the pair."""


@dataclass
class Pairing:
    """The pairs of one split, and masks that no image has."""

    pairs: list[Pair] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)


def pair_files(
    split: str, images: FolderFiles, masks: FolderFiles, root: Path, found: Collector, *, taken: Pairing | None = None
) -> Pairing:
    """Pairs images with masks by name: by the usual endings, then without regard to case and accents.

    Args:
        split: Of the pairs.
        images: The folder of images.
        masks: The folder of masks.
        root: Files are named relative to it.
        found: Takes what is odd.
        taken: Files that a list has paired already; the rest is paired here.
    """
    pairing = Pairing() if taken is None else taken
    image_files = _one_per_stem(images.images, pairing.used, root, found)
    mask_files = _one_per_stem(masks.images, pairing.used, root, found)
    partner, ending = _by_ending(image_files, mask_files)
    loose = _by_loose_name(image_files, mask_files, partner)
    for image, mask in loose.items():
        shown = shown_path(root, image), shown_path(root, mask)
        found.add("names_differ", shown, " and ".join(shown))
    partner |= loose
    lone = [path for path in image_files if path not in partner]
    partnered = set(partner.values())
    spare = [path for path in mask_files if path not in partnered]
    per_class = _is_per_class(image_files, lone, spare, masks)
    if per_class:
        found.make(
            "class_files",
            [shown_path(root, path) for path in (*masks.folders, *spare)],
            f"{split}: {per_class}",
            count=len(image_files),
        )
    for path in () if per_class else lone:
        if path not in images.dead:  # of those it was said that there is nothing
            found.add("missing_mask", shown_path(root, path))
    for folder in () if per_class else (*images.folders, *masks.folders):
        _note_nested(folder, root, found)
    for path in () if per_class else spare:
        found.add("spare_mask", shown_path(root, path))
    dead = images.dead | masks.dead
    for image in image_files:
        partner_file = partner.get(image)
        pairing.pairs.append(
            Pair(
                split=split,
                name=_without(image.stem, ending[0]),
                image=None if image in dead else image,
                mask=None if partner_file in dead else partner_file,
                image_file=shown_path(root, image),
                mask_file=None if partner_file is None else shown_path(root, partner_file),
                sound=partner_file is not None and image not in dead and partner_file not in dead,
            )
        )
    pairing.used.update(image_files, mask_files)
    return pairing


def _note_nested(folder: Path, root: Path, found: Collector) -> None:
    """Notes a folder with images where only files are read."""
    inside = [path for path in islice(folder.iterdir(), _LOOKED_AT) if path.suffix.lower() in IMAGE_SUFFIXES]
    if inside:
        shown = shown_path(root, folder)
        found.add("nested_folder", shown, f"{shown}/ holds {inside[0].name}")


def _one_per_stem(files: Sequence[Path], used: set[Path], root: Path, found: Collector) -> list[Path]:
    """Notes files that share a stem, and returns those to pair: one of each stem that no list has paired.

    Of several, the one that is listed counts, else that of the folder's commonest extension.
    """
    suffixes = Counter(path.suffix.lower() for path in files)
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    kept = []
    for same in by_stem.values():
        if len(same) > 1:
            same.sort(key=lambda path: (path not in used, -suffixes[path.suffix.lower()]))
            names = listed([path.name for path in same])
            found.add("duplicate_stem", [shown_path(root, path) for path in same], names)
        if same[0] not in used:
            kept.append(same[0])
    return kept


def _by_ending(images: Sequence[Path], masks: Sequence[Path]) -> tuple[dict[Path, Path], tuple[str, str]]:
    """Returns the partners under the ending that pairs most images; equal names win when they pair half."""
    best: dict[Path, Path] = {}
    chosen = ("", "")
    for image_end, mask_end in product(IMAGE_ENDINGS, MASK_ENDINGS):
        by_key = {_without(path.stem, mask_end): path for path in masks if path.stem.lower().endswith(mask_end.lower())}
        keys = {
            path: _without(path.stem, image_end) for path in images if path.stem.lower().endswith(image_end.lower())
        }
        partner = {path: by_key[key] for path, key in keys.items() if key in by_key}
        if len(partner) > len(best):
            best, chosen = partner, (image_end, mask_end)
        if 2 * len(best) > len(images):
            break
    return best, chosen


def _by_loose_name(images: Sequence[Path], masks: Sequence[Path], partner: dict[Path, Path]) -> dict[Path, Path]:
    """Pairs what is left by names without case, accents' form and blanks around."""
    used = set(partner.values())
    free = {_loose(path.stem): path for path in masks if path not in used}
    return {image: free[_loose(image.stem)] for image in images if image not in partner and _loose(image.stem) in free}


def _loose(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem).casefold().strip()


def _is_per_class(
    images: Sequence[Path], lone: Sequence[Path], spare: Sequence[Path], masks: FolderFiles
) -> str | None:
    """Says how masks of one file per class are laid out, where most images have no mask but that."""
    if not images or 2 * len(lone) <= len(images):
        return None
    stems = {path.stem for path in images}
    names = {folder.name for folder in masks.folders}
    if len(names & stems) * 2 > len(stems):
        return "the folder of masks holds a folder for each image"
    inside = [folder for folder in masks.folders if any(path.stem in stems for path in list(folder.iterdir())[:50])]
    if len(inside) >= 2:
        return f"the folder of masks holds a folder for each class: {listed([folder.name for folder in inside])}"
    prefixes = [path.stem.rpartition("_")[0] for path in spare]
    if len(set(prefixes) & stems) * 2 > len(stems) and len(spare) > len(stems):
        return "several masks begin with the name of each image"
    return None


def _without(stem: str, ending: str) -> str:
    return stem[: len(stem) - len(ending)]
