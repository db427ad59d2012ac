"""A run's folder: who may write there, and what is written line by line while the run goes on."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from perpixel.engine.atomic import new_folder, remove_leftovers, write_bytes
from perpixel.engine.run_lock import LOCK_FILE
from perpixel.errors import RunError

__all__ = ["RunFolder"]

_MARKERS = ("metrics.jsonl", "environment.json", "config.yaml")
_FOLDERS = ("checkpoints", "best", "last", "predictions", "scenes", "stages", "tensorboard")
_FILES = (*_MARKERS, "data.json", "metrics.json", "report.html", "split.json")
_STEP_EVENTS = ("train", "evaluation", "best", "checkpoint", "interrupted")


class RunFolder:
    """Creates or takes up a run's folder and writes its events, each one shown to the listeners too.

    Args:
        path: Made with its parents when absent.
        resume: Takes up the run that is there.
        overwrite: Removes what an earlier run left there; other files stay.
        on_event: First of ``listeners``, which are called with every event.
        writes: False for all but the main one of several processes: they read what is there, write and tell nothing.

    Raises:
        RunError: the folder holds something and neither ``resume`` nor ``overwrite`` is given, is no run folder where
            one is needed, or cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        writes: bool = True,
    ) -> None:
        self.path, self.writes = Path(path), writes
        self.listeners = [on_event] if on_event is not None else []
        if not writes:
            self._decided: list[dict[str, Any]] = []
            return
        if resume and overwrite:
            raise RunError(f"run folder {self.path}: choose one of resume and overwrite")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; a run needs a folder: choose another name")
        is_run = any((self.path / name).exists() for name in _MARKERS)
        if resume and not is_run:
            raise RunError(
                f"nothing to resume in {self.path}: it holds none of {', '.join(_MARKERS)}; start it without resume"
            )
        with self._disk("make"):
            if not resume and self.path.is_dir() and any(entry.name != LOCK_FILE for entry in self.path.iterdir()):
                self._clear(is_run=is_run, overwrite=overwrite)
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            self._mend_events()
        self._decided = [event for event in self.events() if event.get("event") == "decision"]

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    def event(self, event: str, **values: Any) -> None:
        """Appends one line to metrics.jsonl: ``{"event": event, **values}``, numbers that are not finite as null.

        Raises:
            RunError: the file cannot be written.
        """
        if not self.writes:
            return
        line = {"event": event, **_plain(values)}
        with self._disk("write metrics.jsonl in"), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        for listener in self.listeners:
            listener(line)

    def decision(self, what: str, choice: object, reason: str) -> None:
        """Records what was decided for the user, and why; a resumed run does not say again what stands there."""
        line = _plain({"event": "decision", "what": what, "choice": choice, "reason": reason})
        if line not in self._decided:
            self._decided.append(line)
            self.event("decision", what=what, choice=choice, reason=reason)

    def events(self) -> list[dict[str, Any]]:
        """Reads metrics.jsonl; a last line that a crash cut short is left out."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return []
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise RunError(f"{file}: a line is not JSON ({error}); mend or delete it") from error

    def _mend_events(self) -> None:
        """Cuts off a last line that a crash left unfinished: the next event would be written on to it."""
        file = self.path / "metrics.jsonl"
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_bytes(file, whole)

    def rewind(self, step: int, stage: str) -> None:
        """Drops a stage's events beyond a step, and its end, so that a resumed run does not write its curves twice."""

        if not self.writes:
            return

        def gone(event: dict[str, Any]) -> bool:
            kind = event.get("event")
            late = kind == "end" or (kind in _STEP_EVENTS and event.get("step", -1) > step)
            return late and event.get("stage") == stage

        kept = [event for event in self.events() if not gone(event)]
        text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
        with self._disk("rewrite metrics.jsonl in"):
            write_bytes(self.path / "metrics.jsonl", text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Writes a JSON file that is complete or unchanged.

        Raises:
            RunError: the disk refuses.
        """
        path = self.path / name
        if not self.writes:
            return path
        with self._disk(f"write {name} in"):
            write_bytes(path, (json.dumps(_plain(value), indent=1, ensure_ascii=False) + "\n").encode())
        return path

    @contextmanager
    def replace(self, name: str) -> Iterator[Path]:
        """Yields an empty folder that becomes ``name`` when the block ends well; until then the old one stays.

        Raises:
            RunError: the disk refuses.
        """
        with self._disk(f"write {name} in"), new_folder(self.path / name) as partial:
            yield partial

    def environment(self, device: torch.device | str = "cpu", facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes environment.json: versions, device, threads, commit of this checkout, command, start, ``facts``."""
        device = torch.device(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
        values: dict[str, Any] = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{package: _version(package) for package in ("perpixel", "timm", "numpy")},
            "torch": torch.__version__,
            "device": str(device),
            "device_name": name,
            "threads": torch.get_num_threads(),
            "commit": _commit(),
            "command": shlex.join(sys.argv),
            "start": _now(),
            "end": None,
            **(facts or {}),
        }
        self.write_json("environment.json", values)
        return values

    def finish(self) -> None:
        """Adds the time of the end to environment.json."""
        path = self.path / "environment.json"
        values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.write_json("environment.json", {**values, "end": _now()})

    def _clear(self, *, is_run: bool, overwrite: bool) -> None:
        """Removes an earlier run's files, or says why not."""
        if not overwrite:
            way_out = "--resume goes on with it, --overwrite replaces it" if is_run else "choose another folder"
            raise RunError(f"run folder {self.path} is not empty; {way_out}, or name another with --out")
        if not is_run:
            shown = ", ".join(sorted(entry.name for entry in self.path.iterdir())[:5])
            raise RunError(
                f"{self.path} does not look like a run folder (it holds {shown}) and is not overwritten; choose another"
            )
        for name in _FOLDERS:
            if (self.path / name).is_dir() and not (self.path / name).is_symlink():
                shutil.rmtree(self.path / name)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _disk(self, doing: str) -> Iterator[None]:
        """Turns what the disk refuses into a RunError that says what stays."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot {doing} {self.path}: {error}; what was written before stays. "
                "Free some space or mend the permissions, then resume"
            ) from error


def _plain(value: Any) -> Any:
    """Returns a value as JSON knows it: tensors and arrays as lists, paths as text, NaN and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


def _cpu_name() -> str:
    """Returns the processor's model where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "cpu"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the checkout that this package lies in, None when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
