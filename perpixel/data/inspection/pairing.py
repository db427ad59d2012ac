"""Which mask belongs to which image, without stopping at the first that has none."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
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


class Pair:
    """An image and its mask as far as they are there; paths are made when asked for, since they take 300 bytes each.

    Args:
        split: As the layout calls it.
        name: Of the sample.
        image: None where it cannot be opened, as was said.
        mask: None where there is none, or it cannot be opened, as was said.
        image_file: As findings name it; also of an image that cannot be opened.
        mask_file: As findings name it; None where there is none.
        sound: Whether image and mask are there and the reader of the format takes the pair.
    """

    __slots__ = ("_image", "_mask", "image_file", "mask_file", "name", "sound", "split")

    def __init__(
        self,
        *,
        split: str,
        name: str,
        image: PixelSource | None,
        mask: PixelSource | None,
        image_file: str,
        mask_file: str | None,
        sound: bool = True,
    ) -> None:
        self.split, self.name, self.sound = split, name, sound
        self.image_file, self.mask_file = image_file, mask_file
        self._image, self._mask = _kept(image, image_file), _kept(mask, mask_file)

    @property
    def image(self) -> PixelSource | None:
        """Where its pixels are."""
        return _source(self._image, self.image_file)

    @property
    def mask(self) -> PixelSource | None:
        """Where its labels are."""
        return _source(self._mask, self.mask_file)


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
    image_files = _one_per_stem(images, pairing.used, root, found)
    mask_files = _one_per_stem(masks, pairing.used, root, found)
    partner, ending = _by_ending(image_files, mask_files)
    loose = _by_loose_name(image_files, mask_files, partner)
    for name, other in loose.items():
        shown = shown_path(root, images.folder / name), shown_path(root, masks.folder / other)
        found.add("names_differ", shown, " and ".join(shown))
    partner |= loose
    lone = [name for name in image_files if name not in partner]
    partnered = set(partner.values())
    spare = [name for name in mask_files if name not in partnered]
    per_class = _is_per_class(image_files, lone, spare, masks)
    if per_class:
        found.make(
            "class_files",
            [shown_path(root, path) for path in (*masks.folders, *(masks.folder / name for name in spare))],
            f"{split}: {per_class}",
            count=len(image_files),
        )
    dead, dead_masks = {path.name for path in images.dead}, {path.name for path in masks.dead}
    for name in () if per_class else lone:
        if name not in dead:  # of those it was said that there is nothing
            found.add("missing_mask", shown_path(root, images.folder / name))
    for folder in () if per_class else (*images.folders, *masks.folders):
        _note_nested(folder, root, found)
    for name in () if per_class else spare:
        found.add("spare_mask", shown_path(root, masks.folder / name))
    for name in image_files:
        image = images.folder / name
        mask = masks.folder / partner[name] if name in partner else None
        pairing.pairs.append(
            Pair(
                split=split,
                name=_without(image.stem, ending[0]),
                image=None if name in dead else image,
                mask=None if partner.get(name) in dead_masks else mask,
                image_file=shown_path(root, image),
                mask_file=None if mask is None else shown_path(root, mask),
                sound=mask is not None and name not in dead and mask.name not in dead_masks,
            )
        )
    return pairing


def _kept(source: PixelSource | None, file: str | None) -> PixelSource | str | None:
    """Returns what stands before a file's name in its path, one text for all; a source that is no such file itself."""
    text = str(source) if isinstance(source, Path) and file else ""
    return sys.intern(text[: -len(file)]) if file and text.endswith(file) else source


def _source(kept: PixelSource | str | None, file: str | None) -> PixelSource | None:
    return Path(f"{kept}{file}") if isinstance(kept, str) else kept


def _note_nested(folder: Path, root: Path, found: Collector) -> None:
    """Notes a folder with images where only files are read."""
    inside = [path for path in islice(folder.iterdir(), _LOOKED_AT) if path.suffix.lower() in IMAGE_SUFFIXES]
    if inside:
        shown = shown_path(root, folder)
        found.add("nested_folder", shown, f"{shown}/ holds {inside[0].name}")


def _one_per_stem(files: FolderFiles, listed_files: set[Path], root: Path, found: Collector) -> list[str]:
    """Notes files that share a stem, and returns the names to pair: one of each stem that no list has paired.

    Of several, the one that is listed counts, else that of the folder's commonest extension.
    """
    used = {path.name for path in listed_files if path.parent == files.folder}
    suffixes = Counter(_cut(name)[1] for name in files.names)
    by_stem: dict[str, list[str]] = {}
    for name in files.names:
        by_stem.setdefault(_cut(name)[0], []).append(name)
    kept = []
    for same in by_stem.values():
        if len(same) > 1:
            same.sort(key=lambda name: (name not in used, -suffixes[_cut(name)[1]]))
            found.add("duplicate_stem", [shown_path(root, files.folder / name) for name in same], listed(same))
        if same[0] not in used:
            kept.append(same[0])
    return kept


def _by_ending(images: Sequence[str], masks: Sequence[str]) -> tuple[dict[str, str], tuple[str, str]]:
    """Returns the partners under the ending that pairs most images; equal names win when they pair half."""
    best: dict[str, str] = {}
    chosen = ("", "")
    for image_end, mask_end in product(IMAGE_ENDINGS, MASK_ENDINGS):
        by_key = {key: name for name, key in _keys(masks, mask_end)}
        partner = {name: by_key[key] for name, key in _keys(images, image_end) if key in by_key}
        if len(partner) > len(best):
            best, chosen = partner, (image_end, mask_end)
        if 2 * len(best) > len(images):
            break
    return best, chosen


def _keys(names: Sequence[str], ending: str) -> Iterator[tuple[str, str]]:
    """Yields the names whose stems have an ending, in any case, with what stands before it."""
    for name in names:
        stem = _cut(name)[0]
        if stem.lower().endswith(ending.lower()):
            yield name, _without(stem, ending)


def _by_loose_name(images: Sequence[str], masks: Sequence[str], partner: dict[str, str]) -> dict[str, str]:
    """Pairs what is left by names without case, accents' form and blanks around."""
    used = set(partner.values())
    free = {_loose(name): name for name in masks if name not in used}
    return {name: free[_loose(name)] for name in images if name not in partner and _loose(name) in free}


def _loose(name: str) -> str:
    return unicodedata.normalize("NFKC", _cut(name)[0]).casefold().strip()


def _is_per_class(images: Sequence[str], lone: Sequence[str], spare: Sequence[str], masks: FolderFiles) -> str | None:
    """Says how masks of one file per class are laid out, where most images have no mask but that."""
    if not images or 2 * len(lone) <= len(images):
        return None
    stems = {_cut(name)[0] for name in images}
    names = {folder.name for folder in masks.folders}
    if len(names & stems) * 2 > len(stems):
        return "the folder of masks holds a folder for each image"
    inside = [folder for folder in masks.folders if any(path.stem in stems for path in list(folder.iterdir())[:50])]
    if len(inside) >= 2:
        return f"the folder of masks holds a folder for each class: {listed([folder.name for folder in inside])}"
    prefixes = [_cut(name)[0].rpartition("_")[0] for name in spare]
    if len(set(prefixes) & stems) * 2 > len(stems) and len(spare) > len(stems):
        return "several masks begin with the name of each image"
    return None


def _cut(name: str) -> tuple[str, str]:
    """Returns the stem of a file and its extension in small letters; it has one."""
    stem, _, suffix = name.rpartition(".")
    return stem, suffix.lower()


def _without(stem: str, ending: str) -> str:
    return stem[: len(stem) - len(ending)]
