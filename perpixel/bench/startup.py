"""What a user waits for before anything happens, as whole processes in turns.

The interpreter, ``import perpixel`` and the command line's help stand beside ``import torch``. *First step* is from the
command ``perpixel train IMAGES MASKS --labels 3`` on four small files to the line of the first step in metrics.jsonl:
imports, looking at the data, choosing, building the network, loading, forward, backward, update. Python keeps what it
compiles, as it does for a user, whatever the benchmark's own environment says; a first round fills that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perpixel.bench.contest import Contender, contest
from perpixel.bench.environment import describe_environment, use_threads
from perpixel.bench.request import Request
from perpixel.bench.results import Report, Row, limit, measured_row, row_of
from perpixel.errors import RunError

__all__ = ["measure"]

REFERENCE = "import torch"
COMMANDS = {
    REFERENCE: ["-c", "import torch"],
    "python -c pass": ["-c", "pass"],
    "import perpixel": ["-c", "import perpixel"],
    "perpixel --help": ["-m", "perpixel", "--help"],
    "perpixel recipes": ["-m", "perpixel", "recipes"],
}
LIMITS = {"import perpixel": 0.1, "perpixel --help": 0.3}
FIRST_STEP_SECONDS = 8.0
FIRST_STEP = "first training step"
PATIENCE_S = 120.0
IMAGES, SIDE = 4, 128


def measure(request: Request) -> Report:
    """Measures the commands and the first training step."""
    rows: dict[str, tuple[Callable[[int], Row], list[dict[str, Any]]]] = {
        "commands": (_commands, [limit(n, None, s, sense="at most", unit="s") for n, s in LIMITS.items()]),
        FIRST_STEP: (_first_step, [_first_step_limit(None)]),
    }
    report = Report(
        request.json,
        "startup",
        environment=describe_environment(threads=use_threads(request.threads), packages=("cyclopts", "pydantic")),
        rounds=request.rounds_or(7),
    )
    for name in request.chosen(rows):
        run, targets = rows[name]
        rounds = report.rounds if name == "commands" else min(report.rounds, 3)
        request.say_row(report.put(measured_row(name, partial(run, rounds), targets=targets)))
    return report


def _commands(rounds: int) -> Row:
    found = contest(
        [
            Contender(name=name, prepare=lambda: None, run=partial(_succeed, command))
            for name, command in COMMANDS.items()
        ],
        rounds=rounds,
    )
    limits = [limit(name, found.median(name), most, sense="at most", unit="s") for name, most in LIMITS.items()]
    return row_of("commands", found.rows(REFERENCE), reference=REFERENCE, limits=limits)


def _first_step(rounds: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        _write_data(Path(folder))
        found = contest(
            [Contender(name=FIRST_STEP, prepare=lambda: None, run=lambda _: _train_one_step(Path(folder)))],
            rounds=rounds,
        )
    limits = [_first_step_limit(found.median(FIRST_STEP))]
    return row_of(FIRST_STEP, found.rows(FIRST_STEP), limits=limits)


def _first_step_limit(value: float | None) -> dict[str, Any]:
    return limit("first training step after the command", value, FIRST_STEP_SECONDS, sense="at most", unit="s")


def _succeed(arguments: list[str], _: object) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise RunError(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _write_data(folder: Path) -> None:
    """Noise and blocky masks of three classes."""
    draw = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(IMAGES):
        pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        cells = draw.integers(0, 3, (8, 8), dtype=np.uint8)
        Image.fromarray(np.kron(cells, np.ones((SIDE // 8, SIDE // 8), np.uint8))).save(
            folder / "masks" / f"{index}.png"
        )


def _train_one_step(folder: Path) -> None:
    """Returns when the first step is written down, and stops the command then."""
    run = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "perpixel", "train", str(folder / "images"), str(folder / "masks")]
    command += ["--labels", "3", "--out", str(run / "run"), "steps=1"]
    with (run / "said").open("w+", encoding="utf-8") as said:
        started = subprocess.Popen(command, stdout=said, stderr=said, env=_environment())
        try:
            _wait_for_step(started, run / "run" / "metrics.jsonl")
        except RunError as error:
            said.seek(0)
            raise RunError(f"{error}: {' '.join(said.read().split())[-300:]}") from error
        finally:
            started.kill()
            started.wait()


def _wait_for_step(started: subprocess.Popen[bytes], events: Path) -> None:
    end = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < end:
        if events.exists() and '"event": "train"' in events.read_text(encoding="utf-8"):
            return
        if started.poll() is not None:
            raise RunError(f"perpixel train ended with {started.returncode} before its first step")
        time.sleep(0.01)
    raise RunError(f"perpixel train made no step within {PATIENCE_S:.0f} s")
