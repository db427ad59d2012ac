"""Checks one published block by itself: its weights in, what it computes on the way out.

A block's manifest names no family, so `BLOCKS` tells by keys which one it is; sizes are read off shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perpixel.layers import Encoding
from perpixel.models.encnet import ContextEncodingModule
from perpixel.models.ocrnet import ObjectContext, gather_regions
from perpixel.weights.checkers.vector import TOLERANCE, Row, Skipped, Vector
from perpixel.weights.importers.encoding_encnet import MODULE_RULES
from perpixel.weights.importers.hrnet import CONTEXT_RULES
from perpixel.weights.importers.importer import StateDict, renamed

__all__ = ["BLOCKS", "Block", "check_block"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """How one kind of block is told, and what ours computes in its place."""

    recognise: Callable[[StateDict], bool]
    outputs: Callable[[StateDict, Vector], Mapping[str, Tensor]]
    """(weights, vector with the inputs) -> our arrays by the names of the vector's outputs; runs without gradients."""


def check_block(vector: Vector) -> list[Row]:
    """Compares every output of the block; one that ours does not give has failed.

    Raises:
        Skipped: the keys are of no block in `BLOCKS`.
    """
    tensors = vector.state_dict()
    block = next((block for block in BLOCKS.values() if block.recognise(tensors)), None)
    if block is None:
        raise Skipped(
            f"no block with keys such as {next(iter(tensors), 'none')!r} (there are {', '.join(sorted(BLOCKS))})"
        )
    with torch.no_grad():
        ours = block.outputs(tensors, vector)
    return [
        vector.compare_sampled(name, ours[name])
        if name in ours
        else Row(name=name, error=math.inf, tolerance=TOLERANCE, note="ours gives no such output")
        for name in vector.manifest["outputs"]
    ]


def _encoding_layer(tensors: StateDict, vector: Vector) -> dict[str, Tensor]:
    num_codewords, channels = tensors["codewords"].shape
    layer = Encoding(channels, num_codewords).double().eval()
    layer.load_state_dict(dict(tensors), strict=True)
    x = vector.input("x")
    scaled = layer.scaled_distances(x).transpose(1, 2)  # (B, N, K)
    return {"E": layer(x), "scaled_l2": scaled, "A": scaled.softmax(dim=2)}


def _encoding_module(tensors: StateDict, vector: Vector) -> dict[str, Tensor]:
    num_codewords, channels = tensors["encoding.3.codewords"].shape
    presence = tensors.get("selayer.weight")
    module = ContextEncodingModule(
        channels, num_codewords=num_codewords, num_classes=None if presence is None else presence.shape[0]
    )
    module.double().eval()
    module.load_state_dict({renamed(key, MODULE_RULES): value for key, value in tensors.items()}, strict=True)
    features, semantics = module(vector.input("x"))
    return {"feat": features} | ({} if module.presence is None else {"se": module.presence(semantics)})


def _ocr_head(tensors: StateDict, vector: Vector) -> dict[str, Tensor]:
    named = {renamed(key, CONTEXT_RULES): value for key, value in tensors.items()}
    num_classes, channels = named["classifier.weight"].shape[:2]
    context = ObjectContext(channels, named["context.value.conv.weight"].shape[0], dropout=0.0)
    head = nn.ModuleDict({"context": context, "classifier": nn.Conv2d(channels, num_classes, 1)}).double().eval()
    head.load_state_dict(named, strict=True)
    pixels = vector.input("feats")
    regions = gather_regions(pixels, vector.input("aux"))
    augmented = context(pixels, regions)
    return {"context": regions, "augmented": augmented, "out": head["classifier"](augmented)}


BLOCKS: dict[str, Block] = {
    "encoding-layer": Block(recognise=lambda keys: set(keys) == {"codewords", "scale"}, outputs=_encoding_layer),
    "encoding-module": Block(recognise=lambda keys: "encoding.3.codewords" in keys, outputs=_encoding_module),
    "ocr-head": Block(recognise=lambda keys: "cls_head.weight" in keys, outputs=_ocr_head),
}
