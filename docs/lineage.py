"""Writes docs/lineage.md: the networks of both lineages, from the code and from docs/lineage.yaml.

``python docs/lineage.py`` writes the page, ``--check`` exits with 1 when it is not what would be written. Which
reference vectors hold is read from docs/vectors.json, which ``perpixel verify --json docs/vectors.json`` writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from perpixel.backbones import BackboneConfig
from perpixel.models import create_model
from perpixel.models.cost import count_macs, count_parameters
from perpixel.recipes import RECIPES
from perpixel.weights import IMPORTERS

HERE = Path(__file__).parent
FACTS = HERE / "lineage.yaml"
VECTORS = HERE / "vectors.json"
PAGE = HERE / "lineage.md"

_HEAD = """# The lineage
Made by `python docs/lineage.py` from the code, docs/lineage.yaml and docs/vectors.json; a test checks that it is
current.

Parameters are those of the stated form; MACs are the multiplications of its convolutions and matrix products in one
forward pass of one image. *Vectors* are outputs of the published code that ours must equal within 1e-9 in float64.
Published scores are mean IoU in per cent unless said.
"""


def page() -> str:
    """Returns the whole page."""
    entries: list[dict[str, Any]] = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    held = _held_vectors()
    rows = [_row(entry, held) for entry in entries]
    lines = [
        _HEAD,
        "| network | paper | parameters | published | GMACs | vectors |",
        "|---|---|---:|---:|---:|---|",
        *rows,
        "",
    ]
    for entry in entries:
        lines += _section(entry)
    return "\n".join(lines)


def _row(entry: dict[str, Any], held: dict[str, list[str]]) -> str:
    with torch.device("meta"):
        network = create_model(
            entry["model"], entry.get("options"), num_classes=entry["classes"], backbone=_backbone(entry)
        ).eval()
    parameters = count_parameters(network)
    published = entry.get("published_parameters")
    return (
        f"| {entry['title']} | {entry['paper']} | {parameters:,} | {'' if published is None else f'{published:,}'} "
        f"| {_macs(network, entry['macs_at'])} | {_vectors(entry['families'], held)} |"
    )


def _backbone(entry: dict[str, Any]) -> BackboneConfig | None:
    """The trunk that the entry states; None is the network's own."""
    return BackboneConfig(**entry["backbone"]) if "backbone" in entry else None


def _macs(network: Any, size: list[int] | None) -> str:
    if size is None:
        return "depends on the image"
    with torch.device("meta"):
        image = torch.empty(1, network.preprocessing.num_channels, *size)
    return f"{count_macs(network, image) / 1e9:.1f} at {size[0]}×{size[1]}"


def _vectors(families: list[str], held: dict[str, list[str]]) -> str:
    if not families:
        return "none exists; shapes derived by hand"
    unknown = [family for family in families if family not in IMPORTERS]
    if unknown:
        raise SystemExit(f"docs/lineage.yaml names families without an importer: {', '.join(unknown)}")
    return "; ".join(f"{family}: {', '.join(held.get(family, [])) or 'none here'}" for family in families)


def _held_vectors() -> dict[str, list[str]]:
    """Family → the vectors that held when docs/vectors.json was written."""
    held: dict[str, list[str]] = {}
    for vector in json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]:
        if vector["status"] == "passed" and vector["family"]:
            held.setdefault(vector["family"], []).append(Path(vector["path"]).name)
    return held


def _section(entry: dict[str, Any]) -> list[str]:
    for recipe in entry["recipes"]:
        if recipe not in RECIPES:
            raise SystemExit(f"docs/lineage.yaml names a recipe that does not exist: {recipe}")
    options = ", ".join(f"{key}={value}" for key, value in (entry.get("options") or {}).items())
    lines = [f"## {entry['title']}", f"`{entry['model']}`" + (f" with {options}" if options else "")]
    lines[-1] += ". Recipes: " + ", ".join(f"`{recipe}`" for recipe in entry["recipes"]) + "."
    lines += [f"- Published: {result}." for result in entry["results"]]
    lines += [f"- Paper and code: {text}" for text in entry.get("differs", [])]
    lines += [f"- Not verified: {text}" for text in entry.get("not_verified", [])]
    return [*lines, ""]


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted
    if not current:
        sys.stderr.write("docs/lineage.md is not current; run python docs/lineage.py\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
