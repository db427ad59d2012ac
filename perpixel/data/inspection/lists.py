"""List files of splits, read line by line with what is wrong noted instead of refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from perpixel.data.formats.list_file import split_line
from perpixel.data.inspection.collector import Collector, shown_path
from perpixel.data.inspection.folder_files import note_name, odd_name
from perpixel.data.inspection.pairing import Pair, Pairing

__all__ = ["Locate", "Seen", "note_listed_names", "pair_listed"]

Locate = Callable[[str], tuple[Path, Path | None] | None]
"""Finds the image and the mask that a line names; None for a line that names no pair."""
_HEADINGS = ("image", "images", "img", "image_path", "filename", "file_name")
_Beside: TypeAlias = dict[Path, dict[str, Path]]
"""Folder -> stem in small letters -> file, of folders in which listed files are missing."""
_JPEG = (".jpg", ".jpeg")
_PRIVATE = 0xE000  # letters for private use stand for blanks and control characters of names while a list is cut
_CUTTING = (*range(33), 0x7F, ord(","))
_PROTECTED = {letter: _PRIVATE + letter for letter in _CUTTING}
_RESTORED = {_PRIVATE + letter: letter for letter in _CUTTING}


class Seen(NamedTuple):
    """Where an image was listed first."""

    split: str
    line: int


def pair_listed(
    split: str,
    file: Path,
    locate: Locate,
    root: Path,
    found: Collector,
    seen: dict[Path, Seen],
    *,
    dead: set[Path],
    files: Iterable[Path] = (),
) -> Pairing:
    """Pairs what the lines of a list name.

    Args:
        split: Of the pairs.
        file: The list.
        locate: What a line means in this layout.
        root: Files are named relative to it.
        found: Takes what is odd.
        seen: Images that lists have named so far; grows.
        dead: Files that cannot be opened, as was said.
        files: Those that the list may name; blanks and line breaks in their names do not cut lines.
    """
    pairing = Pairing()
    beside: _Beside = {}
    shown = shown_path(root, file)
    try:
        content = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        found.add("unreadable", shown, f"{shown}: {error.strerror}")
        return pairing
    for name in {path.name for path in files}:
        protected = name.translate(_PROTECTED)
        if protected != name:
            content = content.replace(name, protected)
    for number, line in enumerate(content.split("\n"), start=1):
        text = line.strip()
        if not text or text.startswith("#") or (number == 1 and split_line(text)[0].lower() in _HEADINGS):
            continue
        place = f"{shown}, line {number}"
        if ".." in PurePosixPath(text.replace("\t", "/").replace(",", "/").replace(" ", "/")).parts:
            found.add("outside_path", shown, f"{place}: {text[:120]!r}")
            continue
        pair = locate(text)
        if pair is None:
            found.add("bad_line", shown, f"{place}: {text[:120]!r}")
            continue
        image, mask = (None if path is None else Path(str(path).translate(_RESTORED)) for path in pair)
        assert image is not None
        odd = odd_name(image.name)
        if odd is not None and str(image) != str(pair[0]) and not ("," in line or "\t" in line):
            found.make_error(odd, f"{place} separates its columns by blanks")
        if image in seen:
            first = seen[image]
            found.add("listed_twice", shown_path(root, image), f"{place} and {first.split}, line {first.line}")
            if first.split == split:
                continue
        seen.setdefault(image, Seen(split, number))
        _add(pairing, split, image, mask, root, found, dead, place, beside)
    if not pairing.pairs:
        found.make("layout", [shown], f"{shown}: the list names no pair of files")
    return pairing


def _add(
    pairing: Pairing,
    split: str,
    image: Path,
    mask: Path | None,
    root: Path,
    found: Collector,
    dead: set[Path],
    place: str,
    beside: _Beside,
) -> None:
    """Adds one listed pair as far as its files are there."""
    image = _there(image, root, found, dead, beside)
    mask = None if mask is None else _there(mask, root, found, dead, beside)
    image_there = image in dead or image.is_file()
    mask_there = mask is not None and (mask in dead or mask.is_file())
    shown = shown_path(root, image)
    if mask is not None:
        pairing.used.add(mask)
    pairing.used.add(image)
    if not image_there:
        if mask is not None and mask_there:
            found.add("spare_mask", shown_path(root, mask), f"{shown_path(root, mask)}: {shown} is not there")
            found.make_error("spare_mask", f"{place} names an image that is not there")
        else:
            found.add("listed_missing", shown, place)
        return
    if mask is not None and not mask_there:
        found.add("missing_mask", shown, f"{shown} should have {shown_path(root, mask)}")
        mask = None
    elif mask is not None and not _alike(image.stem, mask.stem):
        found.add("list_pairs_differ", shown, f"{place}: {image.name} with {mask.name}")
    pairing.pairs.append(
        Pair(
            split=split,
            name=image.stem,
            image=None if image in dead else image,
            mask=None if mask is None or mask in dead else mask,
            image_file=shown,
            mask_file=None if mask is None else shown_path(root, mask),
            sound=mask is not None and image not in dead and mask not in dead,
        )
    )


def _there(path: Path, root: Path, found: Collector, dead: set[Path], beside: _Beside) -> Path:
    """Returns the file, or the one that stands in its place with another extension or in other letters."""
    if path in dead or path.is_file() or not path.parent.is_dir():
        return path
    if path.parent not in beside:
        beside[path.parent] = {}
        for other in sorted(path.parent.iterdir()):
            beside[path.parent].setdefault(other.stem.casefold(), other)
    other = beside[path.parent].get(path.stem.casefold(), path)
    if other not in dead and not other.is_file():
        return path
    if (
        other not in dead and other.suffix.lower() not in _JPEG
    ):  # which says more than its name: a mask of this kind is damaged
        found.add("names_differ", shown_path(root, other), f"{path.name} is listed, {other.name} is there")
    return other


def _alike(image: str, mask: str) -> bool:
    """Tells whether one name is a part of the other, or they share what stands before the last underscore."""
    first, second = image.lower(), mask.lower()
    if first in second or second in first:
        return True
    return "_" in first and first.rpartition("_")[0] == second.rpartition("_")[0] and not _numbers_differ(first, second)


def _numbers_differ(first: str, second: str) -> bool:
    def digits(text: str) -> str:
        return "".join(letter for letter in text if letter.isdigit())

    return digits(first) != digits(second)


def note_listed_names(pairing: Pairing, found: Collector) -> None:
    """Notes odd names of files that only a list names."""
    for pair in pairing.pairs:
        for file in (pair.image_file, pair.mask_file):
            if file is not None:
                note_name(file, found)
