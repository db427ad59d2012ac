"""Checks a whole network: the published weights in, the published outputs out.

Shapes: B batch, H W image.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from perpixel.errors import CheckpointError
from perpixel.models import Network
from perpixel.ops import resize
from perpixel.types import SegOutput
from perpixel.weights.checkers.vector import Row, Skipped, Vector
from perpixel.weights.importers import IMPORTERS, import_checkpoint

__all__ = ["check_network", "select_output"]

_SELECTOR = re.compile(
    r"(?P<softmax>log_softmax)?(?P<field>logits|deep|border|presence)?(\[(?P<index>\d+)\])?(?P<resized>@input)?"
    r"(:(?P<input>\w+))?"
)


def check_network(vector: Vector) -> list[Row]:
    """Imports the vector's weights by its family and options, and compares every output that it asks for.

    Raises:
        Skipped: there is no importer for the family.
        CheckpointError: a row of ``compare`` cannot be read.
    """
    family = vector.manifest["family"]
    if family not in IMPORTERS:
        raise Skipped(f"no importer for family {family!r} (there are {', '.join(sorted(IMPORTERS))})")
    network = import_checkpoint(vector.state_dict(), family, **vector.manifest["options"]).network
    network.supervise = True
    outputs: dict[str, SegOutput] = {}
    rows = []
    for name, selector in vector.manifest["compare"].items():
        parts = _SELECTOR.fullmatch(selector)
        if parts is None or bool(parts["softmax"]) == bool(parts["field"]):
            raise CheckpointError(f"{vector.folder}: cannot read the row {name!r}: {selector!r} of 'compare'")
        source = parts["input"] or "image"
        if source not in outputs:
            with torch.no_grad():
                outputs[source] = network(vector.input(source))
        height, width = vector.manifest["inputs"][source][-2:]
        rows.append(vector.compare_sampled(name, select_output(network, outputs[source], parts, (height, width))))
    return rows


def select_output(network: Network, output: SegOutput, parts: re.Match[str], size: tuple[int, int]) -> Tensor:
    """Takes the field that a selector names, brought to the input's size (less the margin) where it says so."""
    value = output.logits if parts["softmax"] else getattr(output, parts["field"])
    if isinstance(value, tuple):
        index = int(parts["index"] or 0)
        if index >= len(value):
            raise CheckpointError(f"{parts[0]!r} is asked for, but the network gives {len(value)} {parts['field']}")
        value = value[index]
    if parts["resized"]:
        inner = (size[0] - 2 * network.margin, size[1] - 2 * network.margin)
        value = resize(value, inner, align_corners=network.align_corners)
    return torch.log_softmax(value, dim=1) if parts["softmax"] else value
