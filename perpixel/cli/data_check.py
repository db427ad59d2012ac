"""``perpixel data check``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay, duration
from perpixel.errors import InvalidValue, RunError

if TYPE_CHECKING:
    from perpixel.data.inspection.finding import Finding
    from perpixel.data.inspection.inspect import Inspection

__all__ = ["data_check"]

_SHOWN_FILES = 10
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
_YAML = (".yaml", ".yml")


def data_check(
    data: str,
    masks: Path | None = None,
    fix_file: Path | None = None,
    /,
    *,
    labels: str | None = None,
    mask_encoding: Literal["ids", "colors"] | None = None,
    split: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    size: tuple[int, int] | None = None,
    stride: int = 8,
    fix: Annotated[bool, Parameter(negative="")] = False,
    html: Path | None = None,
    workers: int | None = None,
    json: JsonFile = None,
) -> int:
    """Finds what will go wrong with a data set: every file is read once, and nothing is changed.

    Each finding says how many files it concerns and which, why it matters, and what repairs it. The exit code is 1 when
    there are errors.

    Args:
        data: [format:]path, or the folder of images followed by that of masks.
        masks: Folder of masks.
        fix_file: After --fix: the mapping file to write; perpixel-fixes.yaml in this folder without it.
        labels: The classes: a known label space, a YAML file or a number; else the data's own, or those of the masks.
        mask_encoding: What masks are meant to hold, ids or colors; without it, that is found out.
        split: Only this split; can be given several times.
        size: Height and width of the images in training, for objects that vanish there; without it, their own.
        stride: Pixels of the training image per point of the network's score map.
        fix: Writes a mapping file that data.fixes=FILE takes: what is left out, and what is read in another way.
        html: File for a page with pictures of the first files of each finding.
        workers: Processes; without it, all cores where there is enough to do.
    """
    check_json_file(json)
    if masks is not None and fix_file is None and fix and masks.suffix.lower() in _YAML:
        masks, fix_file = None, masks
    if fix_file is not None and not fix:
        raise InvalidValue(f"{fix_file}: a third name is the file of --fix; give --fix before it")
    from perpixel.data.inspection.inspect import inspect_data

    fixes = _fixes_file(fix_file) if fix else None
    console = console_for(json)
    with ProgressDisplay(console) as display:
        found = inspect_data(
            data,
            masks,
            labels=labels,
            mask_encoding=mask_encoding,
            splits=split,
            stride=stride,
            size=size,
            workers=workers,
            on_progress=_progress(display),
        )
    _print(console, found)
    write_json(json, found.to_dict())
    if html is not None:
        from perpixel.report.data_page import write_data_page

        say(console, f"page: {write_data_page(found, html)}")
    if fixes is not None:
        _write_fixes(console, found, fixes)
    return 1 if found.count("error") else 0


@dataclass
class _Reading:
    """The reading of files as `ProgressDisplay` takes it."""

    done: int
    total: int
    rate: float | None
    phase: str = "reading"
    values: Mapping[str, Any] = field(default_factory=dict)


def _progress(display: ProgressDisplay) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def update(done: int, total: int) -> None:
        seconds = time.perf_counter() - started
        display.update(_Reading(done, total, done / seconds if seconds > 0 else None))

    return update


def _print(console: Console, found: Inspection) -> None:
    splits = ", ".join(f"{split} {count}" for split, count in found.splits.items()) or "none"
    classes = "" if found.labels is None else f", {found.labels.num_classes} classes of {found.labels.name!r}"
    say(console, f"{found.format} at {found.root}: {sum(found.splits.values())} images ({splits}){classes}")
    for one in found.findings:
        _print_finding(console, one)
    errors = found.count("error")
    counts = [(severity, found.count(severity)) for severity in ("error", "warning", "note")]
    total = ", ".join(f"{count} {severity}" + ("" if count == 1 else "s") for severity, count in counts)
    verdict = "training would fail or learn nonsense" if errors else "nothing stands in the way of training"
    style = "bold red" if errors else "bold green"
    say(console, f"\n{total}: {verdict}", style=style)


def _print_finding(console: Console, found: Finding) -> None:
    say(console, f"\n{found.severity}: {found.kind}", style=_STYLES[found.severity])
    say(console, f"  {_one_line(found.message)}")
    for file in found.files[:_SHOWN_FILES]:
        say(console, f"    {_one_line(file)}")
    if len(found.files) > _SHOWN_FILES:
        say(console, f"    and {len(found.files) - _SHOWN_FILES} more; --json FILE lists all")
    say(console, f"  why: {found.why}")
    say(console, f"  repair: {found.fix}")


def _one_line(text: str) -> str:
    """Shows control characters of file names as escapes, so that none acts on the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _fixes_file(given: Path | None) -> Path:
    """Returns the mapping file to write.

    Raises:
        RunError: there is one already, or its folder is missing.
    """
    file = Path("perpixel-fixes.yaml") if given is None else given
    if file.exists():
        raise RunError(f"--fix {file} is there already and would be lost; give another file, or remove it")
    if not file.absolute().parent.is_dir():
        raise RunError(f"--fix {file}: there is no folder {file.absolute().parent}")
    return file


def _write_fixes(console: Console, found: Inspection, file: Path) -> None:
    from perpixel.data.fixes import write_fixes

    if not found.mending.to_dict():
        say(console, "fixes: nothing that a mapping file could mend, so none is written")
        return
    started = time.perf_counter()
    try:
        write_fixes(file, found.mending, root=found.root)
    except OSError as error:
        raise RunError(f"--fix {file} cannot be written: {error.strerror}; give another file") from error
    left_out, reread = len(found.mending.exclude), len(found.mending.masks)
    say(
        console,
        f"fixes: {file} leaves out {left_out} images and rereads {reread} masks; train with data.fixes={file}"
        f" ({duration(time.perf_counter() - started)})",
    )
