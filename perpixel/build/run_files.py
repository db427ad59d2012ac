"""The files that a run began with: those that it goes on with, whatever has been added to the data since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perpixel.data.formats.item import Item, listed
from perpixel.data.source import DataSource
from perpixel.data.summary import file_sizes
from perpixel.errors import RunError

__all__ = ["SPLIT_FILE", "changed_files", "read_facts", "sizes_by_name", "with_files_of"]

SPLIT_FILE = "split.json"


def sizes_by_name(splits: Mapping[str, Sequence[Item]]) -> dict[str, dict[str, str]]:
    """Returns, for each split, what data.json keeps of its files: name -> bytes of the image and of the mask.

    Raises:
        DataError: a file is not there.
    """
    return {split: {item.name: file_sizes(item) for item in items} for split, items in splits.items()}


def changed_files(stored: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names whose files have other sizes in one data.json than in the other."""
    was = stored.get("files") or {}
    return tuple(
        name
        for split, files in now["files"].items()
        for name, sizes in files.items()
        if (was.get(split) or {}).get(name, sizes) != sizes
    )


def with_files_of(run: Path, source: DataSource) -> tuple[DataSource, tuple[str, ...]]:
    """Leaves out what a run did not begin with; its own images come in the order that they had.

    Args:
        run: The folder of the run that goes on.
        source: Its data as it lies there now.

    Returns:
        The data, and a sentence where something is left out.

    Raises:
        RunError: images that the run began with are gone; names them.
    """
    known = _known(run)
    added: list[str] = []
    gone: list[str] = []
    splits = dict(source.splits)
    for split, items in source.splits.items():
        # Undivided data is one split here and several in the run.
        names = [name for part in known.values() for name in part] if len(splits) == 1 else known.get(split, [])
        if not names:
            continue
        here = {item.name: item for item in items}
        gone += [name for name in names if name not in here]
        added += sorted(set(here) - set(names))
        kept = set(names)
        ordered = items if len(splits) == 1 else [here[name] for name in names if name in here]
        splits[split] = tuple(item for item in ordered if item.name in kept)
    if gone:
        total = sum(len(names) for names in known.values())
        raise RunError(
            f"{run}: of the {total} images that the run began with, {source.root} no longer has {len(gone)}: "
            f"{listed(gone)}. Put them back, or begin a new run with this one's weights: --from {run} in place of "
            "--resume"
        )
    if not added:
        return source, ()
    images = "1 image" if len(added) == 1 else f"{len(added)} images"
    said = (
        f"left out, so that the run goes on as it began: {images} added to the data since: {listed(added)}. To learn "
        f"from them too, begin a new run with this one's weights: --from {run} in place of --resume"
    )
    return replace(source, splits=splits), (said,)


def read_facts(file: Path) -> dict[str, Any]:
    """Returns what a JSON file of a run folder states, empty where it cannot be read."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _known(run: Path) -> Mapping[str, Sequence[str]]:
    """Returns the names of each split as the run folder states them; empty where it does not."""
    described = read_facts(run / "data.json").get("files")
    stated = described if isinstance(described, dict) and described else read_facts(run / SPLIT_FILE)
    return {split: list(names) for split, names in stated.items() if isinstance(names, dict | list)}
