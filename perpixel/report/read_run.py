"""Reads what a run folder holds for its report: everything that is there, and a sentence for each file that is not.

Only run-folder files are read here; images and masks are opened by `perpixel.report.pictures`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from perpixel.errors import InvalidValue, RunError
from perpixel.labels import LabelSpace

__all__ = ["MEASURES_FILE", "RunRecord", "entries", "mapping", "number", "read_run", "told_apart"]

MEASURES_FILE = "measures.json"
"""Scores of the same weights and images that were made later, to add what metrics.json lacks."""
_MEASURES = ("boundary", "intervals", "region_sizes", "calibration", "per_image")
_SAME = 1e-3  # pixel accuracies of one network on one split differ by rounding at most
_MARKERS = ("metrics.jsonl", "environment.json", "config.yaml", "data.json", "metrics.json")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as its folder tells it; what is absent is empty here and explained in ``missing``."""

    path: Path
    config: Mapping[str, Any]
    config_text: str
    """config.yaml as it stands."""
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    labels: LabelSpace | None
    metrics: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    images: tuple[Mapping[str, Any], ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a file -> why the report has nothing from it."""
    told_apart_by: str = ""
    """What distinguishes the run from one of the same name beside it, such as its folder."""

    @property
    def name(self) -> str:
        """The run's name as configured, or its folder's; with its folder beside another run of the name."""
        own = self._own_name()
        return f"{own} ({self.told_apart_by})" if self.told_apart_by else own

    def _own_name(self) -> str:
        configured = self.config.get("name")
        return str(configured) if configured and configured != "run" else self.path.resolve().name

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Returns the events of one kind in the order in which they were written."""
        return [event for event in self.events if event.get("event") == kind]

    def curve(self, kind: str, key: str) -> tuple[list[float], list[float]]:
        """Returns steps over all stages and the values of ``key`` where they are finite."""
        offsets = self.stage_offsets()
        steps, values = [], []
        for event in self.of_kind(kind):
            value = number(event.get("lr") if key == "lr" else mapping(event.get("values")).get(key))
            step = number(event.get("step"))
            if value is not None and step is not None:
                steps.append(step + offsets[str(event.get("stage", ""))])
                values.append(value)
        return steps, values

    def keys(self, kind: str) -> list[str]:
        """Returns the names of the values that events of one kind hold, in order of appearance."""
        return list(dict.fromkeys(key for event in self.of_kind(kind) for key in mapping(event.get("values"))))

    def stage_offsets(self) -> dict[str, float]:
        """Returns, per stage in order, the steps that the stages before it took."""
        lengths: dict[str, float] = {}
        for event in self.events:
            if event.get("event") in ("train", "evaluation", "best", "checkpoint"):
                stage = str(event.get("stage", ""))
                lengths[stage] = max(lengths.get(stage, 0.0), number(event.get("step")) or 0.0)
        offsets, total = {}, 0.0
        for stage, length in lengths.items():
            offsets[stage] = total
            total += length
        return offsets

    def steps(self) -> int | None:
        """Returns the updates that were made over all stages, None when no event tells."""
        found = [x for kind in ("train", "evaluation") for key in self.keys(kind) for x in self.curve(kind, key)[0]]
        return int(max(found)) if found else None

    def wall_seconds(self) -> float | None:
        """Returns the seconds from start to end by environment.json, None when it does not tell."""
        try:
            start, end = (datetime.fromisoformat(str(self.environment[key])) for key in ("start", "end"))
            return max((end - start).total_seconds(), 0.0)
        except (KeyError, ValueError, TypeError):
            return None


def number(value: Any) -> float | None:
    """Returns a finite number as float, None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns a mapping as it is, an empty one for everything else."""
    return value if isinstance(value, Mapping) else {}


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Returns the mappings of a list, nothing for everything else."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def told_apart(run: RunRecord, other: RunRecord) -> tuple[RunRecord, RunRecord]:
    """Returns two runs that share a name, as those of one recipe do, with their folders in their names."""
    if run.name != other.name:
        return run, other
    folders = [record.path.resolve() for record in (run, other)]
    words = [folder.name if folders[0].name != folders[1].name else folder.as_posix() for folder in folders]
    return replace(run, told_apart_by=words[0]), replace(other, told_apart_by=words[1])


def read_run(folder: Path) -> RunRecord:
    """Reads a run folder, whole or interrupted.

    Raises:
        RunError: ``folder`` is no folder, or holds none of the files of a run.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder; give the folder that `perpixel train` wrote")
    if not any((folder / name).is_file() for name in _MARKERS):
        shown = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise RunError(
            f"{folder} is no run folder: it holds {shown} but none of {', '.join(_MARKERS)}; "
            "give the folder that `perpixel train` wrote"
        )
    missing: dict[str, str] = {}
    data = _json(folder, "data.json", dict, missing)
    images = _json(folder, "predictions/images.json", list, missing)
    config_text = _text(folder, "config.yaml", missing) or ""
    return RunRecord(
        path=folder,
        config=_yaml(config_text, missing),
        config_text=config_text,
        environment=_json(folder, "environment.json", dict, missing),
        data=data,
        labels=_labels(data, missing),
        metrics=_with_measures(folder, _json(folder, "metrics.json", dict, missing), missing),
        events=tuple(_all_events(folder, missing)),
        images=tuple(entry for entry in images if isinstance(entry, Mapping)),
        missing=missing,
    )


def _text(folder: Path, name: str, missing: dict[str, str]) -> str | None:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        missing[name] = f"{name} is not in the run folder (an interrupted run has not written it)."
    except (OSError, UnicodeDecodeError) as error:
        missing[name] = f"{name} cannot be read: {error}."
    return None


def _json(folder: Path, name: str, kind: type, missing: dict[str, str]) -> Any:
    text = _text(folder, name, missing)
    if text is None:
        return kind()
    try:
        content = json.loads(text)
    except ValueError as error:
        missing[name] = f"{name} is damaged: {error}."
        return kind()
    if not isinstance(content, kind):
        missing[name] = f"{name} holds a {type(content).__name__} where a {kind.__name__} belongs."
        return kind()
    return content


def _with_measures(folder: Path, metrics: Mapping[str, Any], missing: dict[str, str]) -> Mapping[str, Any]:
    """Adds the measures of ``MEASURES_FILE`` that metrics.json lacks, where both score the same images alike."""
    if not metrics or not (folder / MEASURES_FILE).is_file():
        return metrics
    later = _json(folder, MEASURES_FILE, dict, missing)
    added = {key: later[key] for key in _MEASURES if key in later and key not in metrics}
    if not added:
        return metrics
    for key, most in (("images", 0), ("pixels", 0), ("pixel_accuracy", _SAME)):
        first, second = number(metrics.get(key)), number(later.get(key))
        if first is None or second is None or abs(first - second) > most:
            missing[MEASURES_FILE] = (
                f"{MEASURES_FILE} was left out: its {key.replace('_', ' ')} is {later.get(key)}, that of metrics.json "
                f"{metrics.get(key)}, so it scores other images or other weights."
            )
            return metrics
    return {**metrics, **added}


def _yaml(text: str, missing: dict[str, str]) -> Mapping[str, Any]:
    try:
        return mapping(yaml.safe_load(text))
    except yaml.YAMLError as error:
        missing["config.yaml"] = f"config.yaml is damaged: {error}."
        return {}


def _labels(data: Mapping[str, Any], missing: dict[str, str]) -> LabelSpace | None:
    if "data.json" in missing:
        return None
    try:
        return LabelSpace.from_dict(data["labels"])
    except (InvalidValue, LookupError, TypeError, ValueError, AttributeError) as error:
        missing["data.json"] = f"data.json describes no label space: {error!r}."
        return None


def _all_events(folder: Path, missing: dict[str, str]) -> Sequence[Mapping[str, Any]]:
    """Reads the run's events; where the stages keep their own, theirs follow."""
    events = _events(folder, "metrics.jsonl", missing)
    if any(event.get("event") == "train" for event in events):
        return events
    for stage in sorted((folder / "stages").glob("*/metrics.jsonl"), key=_stage_number):
        name = stage.relative_to(folder).as_posix()
        own = _events(folder, name, missing)
        events += [{"stage": stage.parent.name, **event} for event in own]
    if events:
        missing.pop("metrics.jsonl", None)
    return events


def _stage_number(path: Path) -> tuple[int, str]:
    first = path.parent.name.split("-")[0]
    return (int(first) if first.isdigit() else 0, path.parent.name)


def _events(folder: Path, name: str, missing: dict[str, str]) -> list[Mapping[str, Any]]:
    text = _text(folder, name, missing)
    events: list[Mapping[str, Any]] = []
    for index, line in enumerate((text or "").splitlines()):
        try:
            event = json.loads(line) if line.strip() else None
        except ValueError:
            missing[name] = f"{name}: line {index + 1} is cut short or damaged and was left out."
            continue
        if isinstance(event, Mapping):
            events.append(event)
    return events
