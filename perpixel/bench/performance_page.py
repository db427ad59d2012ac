"""docs/performance.md out of the files of results, and the words that stand beside the tables.

Figures come from benchmarks/results/*.json alone; what is measured is said here, why a limit is missed in
docs/performance.yaml, by benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from perpixel.bench.gpu_parts import gpu_targets
from perpixel.bench.results import read_report
from perpixel.errors import RunError

__all__ = ["performance_page", "read_results", "read_words"]

_HEAD = """# Performance
Made by `perpixel bench page` from benchmarks/results and docs/performance.yaml; a test checks that it is current.

Every figure comes from one interleaved run: contenders take turns in every round. A time is the median round, in
brackets the quartiles; *times as fast* is the median over the rounds of the reference's time over the contender's,
in brackets its quartiles, above 1 is faster. *Share* is what a network reaches of the rate of a large matrix product
of the same number format, measured in the same process. Memory is the peak above what is said in each section.
"""

TEXTS: dict[str, tuple[str, str]] = {
    "startup": (
        "Start-up",
        "Whole processes. The first training step is counted from the command `perpixel train IMAGES MASKS --labels 3` "
        "on four small files to the first line of training in metrics.jsonl.",
    ),
    "roofline": (
        "What the device can do",
        "Large square matrix products, a 3×3 convolution of 256 channels (channels_last), and a copy of a block far "
        "larger than the caches (bytes read and written).",
    ),
    "training_step": (
        "Training step",
        "From uint8 images to updated weights by `engine.step.train_step`, against a plain loop around the same "
        "network with the same weights, channels_last and in the same number format, which gets normalised float "
        "images. *Work* is images/s times the GMACs of a forward pass, so that networks can be compared. Memory: the "
        "peak of the second step above what the process held before the network was built.",
    ),
    "forward": (
        "Inference",
        "Normalised images in, the class of every pixel out. The reference is the same network, with the same weights, "
        "in eager float32 and planar memory, its scores enlarged to the image and then argmax. Memory: the peak of a "
        "pass above what the process held before it.",
    ),
    "fused_ops": (
        "Fused upsampling with loss or argmax",
        "The plain forms interpolate the scores to the image; ours never hold that map. Losses run forward and "
        "backward. Memory: the peak of a run above what the process held before it.",
    ),
    "loader": (
        "Transforms and loading",
        "Random scale, crop and flip of 480×360 images to 320×320 and on to a jittered, normalised batch; processor "
        "time of one thread, an image at a time. Loading adds reading JPEG and PNG files.",
    ),
    "metrics": (
        "Metrics",
        "One confusion matrix of 4 × 512 × 512 pixels, 19 classes. torchmetrics runs without its validation of "
        "arguments, perpixel with its own; the matrices are equal.",
    ),
    "crf": (
        "Dense CRF",
        "DeepLab v2's numbers, ten updates, set-up included; ours on all threads, pydensecrf on the one that it has. "
        "Memory: the peak above what the process held before the CRF began.",
    ),
    "gpu": (
        "On a GPU",
        "`python benchmarks/gpu.py`. Memory: the most that tensors take, weights included, as the allocator counts.",
    ),
}
"""Benchmark -> title and what is measured, in the order of the page."""


def performance_page(results: Path, words: Path) -> str:
    """Returns the whole page.

    Raises:
        RunError: a file cannot be read, or the words name a benchmark that is not there.
    """
    said = read_words(words)
    reports = read_results(results)
    parts = [_HEAD, *_limits_table(reports)]
    order = list(TEXTS)
    for report in sorted(reports, key=lambda found: order.index(found["benchmark"])):
        parts += _section(report, said.get(report["benchmark"], {}))
    return "\n".join(parts).rstrip() + "\n"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Returns the reports of a folder, by file name; files of other forms are none of this page's.

    Raises:
        RunError: the folder holds no report.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            report = read_report(path)
        except RunError:
            continue
        if report["benchmark"] in TEXTS:
            found.append({**report, "file": path.name})
    if not found:
        raise RunError(f"{folder} holds no results; run `perpixel bench all` first, or name another folder")
    return found


def read_words(path: Path) -> dict[str, dict[str, Any]]:
    """Returns benchmark -> ``missed`` (row or limit -> why) and ``notes``.

    Raises:
        RunError: the file cannot be read, or a key is unknown.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read ({error}); mend it, or name another file") from error
    for name, entry in content.items():
        if name not in TEXTS:
            raise RunError(f"{path}: no benchmark {name!r}; known: {', '.join(TEXTS)}")
        unknown = set(entry or {}) - {"missed", "notes"}
        if unknown:
            raise RunError(f"{path}: {name}: unknown {', '.join(sorted(unknown))}; known: missed, notes")
    return {name: entry or {} for name, entry in content.items()}


def _limits_table(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """All targets in one place."""
    lines = ["## Targets", "| benchmark | row | target | measured | limit | |", "|---|---|---|---:|---:|---|"]
    for report in reports:
        lines += [_limit_line(_title(report), found["row"], found) for found in report["limits"]]
    if not any(report["benchmark"] == "gpu" for report in reports):
        for row, found in gpu_targets():
            lines.append(_limit_line(TEXTS["gpu"][0], row, found))
    return [*lines, ""]


def _limit_line(title: str, row: str, found: Mapping[str, Any]) -> str:
    value = "not measured" if found["value"] is None else _short(found["value"])
    verdict = {True: "reached", False: "**missed**", None: "open"}[found["reached"]]
    bound = f"{found['sense']} {_short(found['limit'])} {found['unit']}".strip()
    return f"| {title} | {row} | {_escaped(found['what'])} | {value} | {bound} | {verdict} |"


def _section(report: Mapping[str, Any], words: Mapping[str, Any]) -> list[str]:
    lines = [f"## {_title(report)}", TEXTS[report["benchmark"]][1], "", _caption(report), ""]
    timed = [row for row in report["rows"] if row["contenders"]]
    if timed:
        lines += _contenders_table(timed)
    valued = [row for row in report["rows"] if not row["contenders"] and not row["failed"]]
    if valued:
        lines += _values_table(valued)
    failed = [f"- {row['name']}: {_escaped(row['failed'])}" for row in report["rows"] if row["failed"]]
    lines += ["Not measured:", *failed, ""] if failed else []
    missed = words.get("missed") or {}
    lines += ["Why a target is missed:", *(f"- {row}: {why}" for row, why in missed.items()), ""] if missed else []
    lines += [f"- {note}" for note in words.get("notes") or []] + ([""] if words.get("notes") else [])
    return lines


def _title(report: Mapping[str, Any]) -> str:
    title = TEXTS[report["benchmark"]][0]
    return f"{title}: {report['environment']['device']}" if report["benchmark"] == "gpu" else title


def _caption(report: Mapping[str, Any]) -> str:
    where = report["environment"]
    commits = sorted({row["commit"] or "unknown" for row in report["rows"]})
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return (
        f"{where['device']}, threads: {where['threads']}; {where['date']}, commit {', '.join(commits)}; Python "
        f"{where['python']}, {versions}; {report['rounds']} rounds ({report['file']})."
    )


_COLUMNS: dict[str, tuple[str, float]] = {
    "images_per_s": ("images/s", 1),
    "work": ("work", 1),
    "times_the_work": ("times the work", 1),
    "share_of_matmul": ("share, %", 100),
    "share_of_copy": ("share of the copy rate, %", 100),
    "same_class": ("same class, %", 100),
    "peak_mb": ("MiB", 1),
}
"""Further values of a contender -> column and factor; columns that no row fills are left out."""


def _contenders_table(rows: list[Mapping[str, Any]]) -> list[str]:
    found = [contender for row in rows for contender in row["contenders"].values()]
    columns = [key for key in _COLUMNS if any(key in contender for contender in found)]
    titles = ["row", "contender", "ms", "times as fast", *(_COLUMNS[key][0] for key in columns)]
    lines = [f"| {' | '.join(titles)} |", "|---|---|---:|---:|" + "---:|" * len(columns)]
    for row in rows:
        for number, (name, contender) in enumerate(row["contenders"].items()):
            cells = [row["name"] if not number else "", name, *_times(contender, name == row["reference"])]
            for key in columns:
                cells.append(_short(contender[key] * _COLUMNS[key][1]) if contender.get(key) is not None else "")
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _times(contender: Mapping[str, Any], is_reference: bool) -> list[str]:
    if "median_s" not in contender:
        return ["", ""]
    low, high = (_short(1e3 * value) for value in contender["quartiles_s"])
    time = f"{_short(1e3 * contender['median_s'])} ({low} to {high})"
    if is_reference or "times_as_fast" not in contender:
        return [time, "reference" if is_reference else ""]
    ratio = contender["times_as_fast"]
    low, high = (f"{value:.2f}" for value in ratio["per_round_quartiles"])
    return [time, f"{ratio['per_round']:.2f} ({low} to {high})"]


def _values_table(rows: list[Mapping[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key, value in row["values"].items() if _is_number(value)))
    lines = ["| row | " + " | ".join(keys) + " |", "|---|" + "---:|" * len(keys)]
    for row in rows:
        cells = [_short(row["values"][key]) if key in row["values"] else "" for key in keys]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float) -> str:
    """Three significant digits, whole numbers from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.1e}"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
