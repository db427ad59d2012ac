"""Which predicted mask belongs to which target: by path without suffix, or by a pattern of file names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.file_search import files_below
from perpixel.errors import DataError, InvalidValue

__all__ = ["MaskFiles", "MatchedMasks", "MissingRule", "match_masks"]

MissingRule = Literal["refuse", "wrong"]

WRONG_HINT = '; missing="wrong" (--missing wrong) counts such pixels as wrong'
_MASK_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg"))
_NAMED_FILES = 20
_NAME = "{name}"
_TOKENS = re.compile(r"\*\*/|\*|\{name\}")
_REGEX = {"**/": r"(?:.*/)?", "*": r"[^/]*", _NAME: r"(?P<name>.+)"}


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """The files of one image."""

    index: int
    """Its place among the targets, from 0."""
    name: str
    target: Path
    prediction: Path | None
    """None when it is missing."""
    instances: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MatchedMasks:
    """All images in the order of their names, and what was passed over."""

    images: tuple[MaskFiles, ...]
    notes: tuple[str, ...]


def match_masks(
    predictions_dir: Path,
    targets_dir: Path,
    *,
    pattern: str | None = None,
    missing: MissingRule = "refuse",
    instances_dir: Path | None = None,
) -> MatchedMasks:
    """Finds the masks below both folders and pairs them; links to files and folders are followed.

    Args:
        predictions_dir: Folder of predicted masks.
        targets_dir: Folder of true masks.
        pattern: None pairs files of the same path below their folders, suffix aside. A pattern is
            ``"PREDICTION=TARGET"``: two paths below the folders in which ``{name}`` stands for what both share, ``*``
            for any text within a file or folder name and ``**/`` for any folders or none, such as
            ``"{name}_leftImg8bit.png=**/{name}_gtFine_labelIds.png"``. With instances it has a third part for them.
        missing: Whether targets without prediction are refused or kept without a file.
        instances_dir: Folder of the truth's instance numbers.

    Raises:
        DataError: a folder is missing, holds no masks or links that lead nowhere, two masks share a name, or files do
            not match.
        InvalidValue: the pattern or ``missing`` is not as said.
    """
    if missing not in get_args(MissingRule):
        raise InvalidValue(f"missing is one of {', '.join(get_args(MissingRule))}, got {missing!r}")
    folders = [predictions_dir, targets_dir, *([] if instances_dir is None else [instances_dir])]
    parts = _parts(pattern, len(folders))
    found = [_masks(folder, part) for folder, part in zip(folders, parts, strict=True)]
    predictions, targets = found[0].files, found[1].files
    problems = [_listed("predictions have no target", _only(predictions, targets))]
    hint = ""
    if missing == "refuse":
        absent = _only(targets, predictions)
        problems.append(_listed(f"targets have no prediction in {predictions_dir}", absent))
        hint = WRONG_HINT if absent else ""
    instances = found[2].files if instances_dir is not None else None
    if instances is not None:
        problems.append(_listed(f"targets have no instances in {instances_dir}", _only(targets, instances)))
    if any(problems):
        rule = "by path without suffix" if pattern is None else f"by the pattern {pattern!r}"
        what = f"{'; '.join(filter(None, problems))}. Masks are matched {rule}{hint}"
        raise DataError(what + _suggestion(predictions, targets, pattern))
    images = tuple(
        MaskFiles(
            index=index,
            name=name,
            target=targets[name],
            prediction=predictions.get(name),
            instances=None if instances is None else instances[name],
        )
        for index, name in enumerate(sorted(targets))
    )
    return MatchedMasks(images=images, notes=tuple(note for folder in found for note in folder.notes))


@dataclass(frozen=True)
class _Found:
    files: dict[str, Path]
    notes: tuple[str, ...]


def _parts(pattern: str | None, count: int) -> list[str | None]:
    """Splits a pattern into one part per folder."""
    if pattern is None:
        return [None] * count
    parts = pattern.split("=")
    if len(parts) != count or any(part.count(_NAME) != 1 for part in parts):
        form = "PREDICTION=TARGET" + ("=INSTANCES" if count == 3 else "")
        raise InvalidValue(
            f"pattern {pattern!r}: a pattern is {form}, file names with {_NAME} once in each part, such as "
            "'{name}_leftImg8bit.png=**/{name}_gtFine_labelIds.png'"
        )
    return list(parts)


def _masks(folder: Path, pattern: str | None) -> _Found:
    """Returns the masks below a folder by the name they share with those of other folders."""
    if not folder.is_dir():
        what = "is a file, give the folder that holds it" if folder.exists() else "there is no such folder"
        raise DataError(f"{folder}: {what}")
    paths = sorted(files_below(folder))
    masks = [p for p in paths if p.suffix.lower() in _MASK_SUFFIXES]
    lost = [path for path in (masks if pattern is None else paths) if not path.exists()]
    if lost:
        raise DataError(f"{len(lost)} links lead nowhere: {shortened(lost)}. Fetch their files, or remove the links")
    if not (masks if pattern is None else paths):
        raise DataError(f"{folder}: the folder and its subfolders hold no mask ({', '.join(_MASK_SUFFIXES)})")
    if pattern is None:
        return _Found(_named(folder, masks, lambda path: path.with_suffix("").as_posix()), ())
    regex = re.compile(_TOKENS.sub(lambda token: _REGEX[token.group()], _escaped(pattern)))

    def name(path: Path) -> str | None:
        match = regex.fullmatch(path.as_posix())
        return None if match is None else match["name"]

    files = _named(folder, paths, name)
    if not files:
        example = paths[0].relative_to(folder).as_posix()
        raise DataError(f"{folder}: none of its {len(paths)} files matches the pattern {pattern!r}; one is {example}")
    other = len(paths) - len(files)
    return _Found(files, (f"{folder}: {other} files do not match {pattern!r} and were passed over",) if other else ())


def _escaped(pattern: str) -> str:
    """Escapes what is not a placeholder."""
    texts, tokens = _TOKENS.split(pattern), _TOKENS.findall(pattern)
    return re.escape(texts[0]) + "".join(t + re.escape(s) for t, s in zip(tokens, texts[1:], strict=True))


def _named(folder: Path, paths: Iterable[Path], name_of: Callable[[Path], str | None]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = name_of(path.relative_to(folder))
        if name is None:
            continue
        if name in found:
            raise DataError(f"{found[name]} and {path} share the name {name!r}; keep one mask per image")
        found[name] = path
    return found


def _only(first: Mapping[str, Path], second: Mapping[str, Path]) -> list[Path]:
    return [first[name] for name in sorted(first.keys() - second.keys())]


def _listed(what: str, files: list[Path]) -> str:
    return f"{len(files)} {what}: {shortened(files)}" if files else ""


def shortened(files: Iterable[object]) -> str:
    """Lists the first files and counts the others."""
    listed = list(files)
    more = f" and {len(listed) - _NAMED_FILES} more" if len(listed) > _NAMED_FILES else ""
    return ", ".join(str(path) for path in listed[:_NAMED_FILES]) + more


def _suggestion(predictions: Mapping[str, Path], targets: Mapping[str, Path], pattern: str | None) -> str:
    """Where no name is on both sides, shows what --pattern is for."""
    if predictions.keys() & targets.keys():
        return ""
    first, second = min(predictions), min(targets)
    way = (
        "correct the pattern"
        if pattern is not None
        else "say how they belong together with --pattern PREDICTION=TARGET"
    )
    return f". No name is on both sides (such as {first!r} and {second!r}): {way}"
