"""What differs between a run as it was begun and the one that goes on with it: what may, and what cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.build.datasets import RunData
from perpixel.build.run_files import changed_files, read_facts
from perpixel.config import RunConfig, load_config
from perpixel.data.formats.item import listed
from perpixel.engine.checkpoints import list_checkpoints
from perpixel.errors import ConfigError, RunError

__all__ = ["Change", "check_config", "check_data", "config_changes", "environment_changes", "stored_environment"]

_LAST_BITS = "weights may differ from an unbroken run's in the last bits"
_OTHER_BATCHES = "the run's batches would be others"
_OTHER_OPTIMIZER = "the saved state of the optimiser is of these values"
_RULES: tuple[tuple[str, bool, str], ...] = (
    (r"name|recipe", True, "a name, no more"),
    (r"evaluation\.every", True, "early stops and plateau schedules count evaluations"),
    (r"evaluation\..*", True, "from now on"),
    (r"checkpoint_every|keep_checkpoints|tensorboard", True, "from now on"),
    (r"data\.(workers|cache_mb|max_pixels|allow_absent_classes|test_split)", True, "the batches stay the same"),
    (r"data\.(source|images|masks|fixes)", True, "the files have the names and sizes that they had"),
    (r"stages\.\d+\.patience", True, "a stage that has stopped early stays so"),
    (r"stages\.\d+\.start", True, "a stage that has begun keeps its weights"),
    (r"labels", False, "the network's classes would be others"),
    (r"seed|data\..*|stages\.\d+\.data(\..*)?|stages\.\d+\.accumulate", False, _OTHER_BATCHES),
    (r"stages\.\d+\.model(\..*)?", False, "the saved weights are another network's"),
    (r"stages\.\d+\.(optimizer|groups|new_layers_lr_factor|no_decay_norm_bias|trainable|frozen)(\..*)?", False,
     _OTHER_OPTIMIZER),
    (r"stages\.\d+\.schedule(\..*)?", False, "the learning rate would jump"),
    (r"stages\.\d+\.ema_decay", False, "the running mean of the weights is of this decay"),
    (r"stages\.\d+\.monitor", False, "the best score so far is another one"),
    (r"stages(\..*)?", False, "the run would be another"),
    (r".*", True, _LAST_BITS),
)  # fmt: skip
"""Key, whether it may change within a run, and what follows; the first that matches counts."""
_BATCH = re.compile(r"data\.batch_size|stages\.\d+\.(data\.batch_size|accumulate)")
_STEPS = re.compile(r"stages\.(\d+)\.steps")
_VERSIONS = ("perpixel", "torch", "python", "numpy", "timm", "device", "device_name", "threads", "processes")
_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Change:
    """A value that is no longer what it was when the run began."""

    key: str
    was: Any
    now: Any
    allowed: bool
    note: str
    """What follows from it."""

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.was)} -> {_shown(self.now)} ({self.note})"


def config_changes(stored: RunConfig, now: RunConfig) -> tuple[Change, ...]:
    """Returns every key whose value differs, in the order of the configuration.

    Steps are always allowed here; `check_config` knows how many have been done.
    """
    if len(stored.stages) != len(now.stages):
        note = "the stages of a run stay those that it began with"
        return (Change(key="stages", was=len(stored.stages), now=len(now.stages), allowed=False, note=note),)
    was, is_now = (dict(_flat(config.model_dump(mode="json"), "")) for config in (stored, now))
    found = []
    for key in dict.fromkeys((*was, *is_now)):
        one, other = was.get(key), is_now.get(key)
        if one == other and type(one) is type(other):
            continue
        if _BATCH.fullmatch(key) and _images_per_update(stored) == _images_per_update(now):
            allowed, note = True, "an update sees the same images as before; batch norm sees fewer or more at once"
        elif _STEPS.fullmatch(key):
            allowed, note = True, f"the learning rate goes on as in a run of {other} steps"
        else:
            allowed, note = next((ok, note) for pattern, ok, note in _RULES if re.fullmatch(pattern, key))
        found.append(Change(key=key, was=one, now=other, allowed=allowed, note=note))
    return tuple(found)


def _images_per_update(config: RunConfig) -> list[int]:
    return [config.data_of(index).batch_size * stage.accumulate for index, stage in enumerate(config.stages)]


def check_config(folder: Path, config: RunConfig) -> tuple[str, ...]:
    """Compares a configuration with the one that lies in the run folder.

    Args:
        folder: The run that goes on.
        config: What it is to go on with.

    Returns:
        A sentence for each difference that is allowed.

    Raises:
        RunError: something differs that cannot change within a run; every such key named.
    """
    if not (folder / "config.yaml").exists():
        return ()
    try:
        stored = load_config(folder / "config.yaml")
    except ConfigError as error:
        first = str(error).splitlines()[0]
        return (f"what the run began with cannot be read, so nothing was compared: {first}",)
    changes = config_changes(stored, config)
    refused = [str(change) for change in changes if not change.allowed]
    refused += [problem for change in changes if (problem := _impossible_steps(folder, config, change))]
    if refused:
        raise RunError(
            f"{folder} cannot go on with another configuration:\n  "
            + "\n  ".join(refused)
            + f"\nLeave these as they were, or begin a new run with this one's weights: --from {folder} in place of "
            "--resume"
        )
    return tuple(f"changed since the run began: {change}" for change in changes)


def check_data(folder: Path, data: RunData) -> tuple[str, ...]:
    """Makes sure that the data is what the run has been trained on so far.

    Returns:
        A sentence where files have changed and their names have not, as after a damaged one was mended.

    Raises:
        RunError: files were added, removed or renamed, or the classes have other names.
    """
    stored = read_facts(folder / "data.json")
    if "fingerprint" not in stored:
        return ()
    way_out = f"Put the data back as it was, or begin a new run with this one's weights: --from {folder}"
    was, now = (list((values.get("labels") or {}).get("names") or ()) for values in (stored, data.description))
    if was and was != now:
        raise RunError(f"{folder}: the classes were {', '.join(was)} when the run began and are {', '.join(now)} now. "
                       + way_out)  # fmt: skip
    if stored["fingerprint"] == data.fingerprint:
        return _edited_masks(stored, data)
    if stored.get("names") == data.description["names"]:
        changed = changed_files(stored, data.description)
        named = f": images or masks of {listed(changed)}" if changed else ""
        return (f"changed since the run began: the content of some files of the data, whose names are the same{named}",)
    counts = [
        f"{name} {(stored.get('splits') or {}).get(name, {}).get('images', 0)} -> {summary.images} images"
        for name, summary in data.summaries.items()
    ]
    raise RunError(
        f"{folder}: the data has changed since the run began: {', '.join(counts)}; names of files differ. " + way_out
    )


def _edited_masks(stored: Mapping[str, Any], data: RunData) -> tuple[str, ...]:
    """Says where masks hold other pixels in files as long as before: small ones keep their length when edited."""
    edited = [
        f"{name} {was} -> {now} pixels of {split}"
        for split, summary in data.summaries.items()
        for name, was, now in zip(
            data.labels.names,
            ((stored.get("splits") or {}).get(split) or {}).get("pixels_per_class") or summary.pixels_per_class,
            summary.pixels_per_class,
            strict=True,
        )
        if was != now
    ]
    return (f"changed since the run began: the content of some masks: {listed(edited, 3)}",) if edited else ()


def stored_environment(folder: Path) -> Mapping[str, Any]:
    """Returns the environment.json of a run, empty where it cannot be read."""
    return read_facts(folder / "environment.json")


def environment_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a sentence for each version, device or number of processes or threads that both know and that differs."""
    keys = [key for key in _VERSIONS if was.get(key) is not None and now.get(key) is not None]
    return tuple(
        f"changed since the run began: {key.replace('_', ' ')} {was[key]} -> {now[key]} ({_LAST_BITS})"
        for key in keys
        if was[key] != now[key]
    )


def _impossible_steps(folder: Path, config: RunConfig, change: Change) -> str | None:
    """Says why a stage cannot have so many steps; None where it can."""
    match = _STEPS.fullmatch(change.key)
    if match is None:
        return None
    index = int(match[1])
    done = _steps_done(folder, config, index)
    if change.now < done:
        return f"{change.key}: {change.was} -> {change.now} (it has done {done} already)"
    later = config.stages[index + 1].name if index + 1 < len(config.stages) else None
    if later is not None and _stage_folder(folder, config, index + 1).exists():
        return f"{change.key}: {change.was} -> {change.now} (stage {later!r} after it has begun)"
    return None


def _steps_done(folder: Path, config: RunConfig, index: int) -> int:
    saved = list_checkpoints(_stage_folder(folder, config, index) / "checkpoints")
    return max((int(path.name.removeprefix("step-")) for path in saved), default=0)


def _stage_folder(folder: Path, config: RunConfig, index: int) -> Path:
    return folder if len(config.stages) == 1 else folder / "stages" / f"{index + 1}-{config.stages[index].name}"


def _flat(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and plain values; lists of plain values stay in one piece."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        for index, value in enumerate(values):
            yield from _flat(value, f"{key}.{index}")
    else:
        yield key, values


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
