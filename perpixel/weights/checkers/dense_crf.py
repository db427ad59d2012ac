"""Checks the dense CRF against pydensecrf, and mean field as layers against CRF-as-RNN's PyTorch port.

Shapes: K classes, H W image, N = H W pixels.
A vertex of the lattice that a pixel touches with no weight may or may not exist after rounding, and moves a few pixels
when it does: probabilities are compared by their mean error and their classes (reference/README.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.errors import CheckpointError
from perpixel.inference.dense_crf import DenseCRF, crf_kernels
from perpixel.models.crf_rnn import MeanFieldLayer
from perpixel.ops.mean_field import GaussianFilter, Normalization, free_energy, mean_field
from perpixel.ops.permutohedral import build_lattice
from perpixel.weights.checkers.vector import Row, Vector
from perpixel.weights.reference_values import fill_value

__all__ = [
    "ENERGY_TOLERANCE",
    "LOGITS_TOLERANCE",
    "MEAN_TOLERANCE",
    "MOST_OTHER_CLASSES",
    "check_crf_rnn",
    "check_dense_crf",
]

MEAN_TOLERANCE = 1e-6
"""Mean |ours - expected| of probabilities."""
MOST_OTHER_CLASSES = 1e-3
"""Share of pixels whose most probable class differs."""
ENERGY_TOLERANCE = 1e-4
"""Relative: theirs is summed in float32, one pixel after the other."""
LOGITS_TOLERANCE = 1e-3
"""max |ours - expected| / max(1, max |expected|) of logits, gradients and single filters, theirs in float32."""

_NORMALIZATIONS: dict[str, Normalization] = {
    "NO": "none",
    "BEFORE": "before",
    "AFTER": "after",
    "SYMMETRIC": "symmetric",
}
_OUR_NAMES = {
    "spatial_ker_weights": "spatial_weights",
    "bilateral_ker_weights": "bilateral_weights",
    "compatibility_matrix": "compatibility",
}
_FILL_FACTOR = 0.3


def check_dense_crf(vector: Vector) -> list[Row]:
    """Compares Q after each stored number of updates, and the free energy after the last, of every case."""
    inputs = _inputs(vector)
    rows = []
    for case in vector.manifest["cases"]:
        scores, filters, gains = _problem(case, inputs)
        prefix = f"{case['name']}_q"
        for step in sorted(int(name.removeprefix(prefix)) for name in vector.expected if name.startswith(prefix)):
            q = mean_field(scores, filters, gains, iterations=step).softmax(dim=-1)
            rows += _probability_rows(f"{prefix}{step}", q[0].T.numpy(), vector.expected[f"{prefix}{step}"])
            if f"kl{step}" in case:
                energy = float(free_energy(q, scores, filters, gains))
                error = abs(energy - case[f"kl{step}"]) / abs(case[f"kl{step}"])
                name = f"{case['name']}_kl{step}"
                rows.append(Row(name=name, error=error, tolerance=ENERGY_TOLERANCE, note="relative error"))
    return rows


def check_crf_rnn(vector: Vector) -> list[Row]:
    """Compares outputs with initial and with other parameters, gradients after two updates, and single filters."""
    inputs = _inputs(vector)
    unary, colors, weights = (torch.from_numpy(inputs[name]).double()[None] for name in ("logits", "image", "G"))
    rows = []
    for name in sorted(name for name in vector.expected if "_it" in name):
        layer = _layer(vector, filled=name.startswith("filled"))
        with torch.no_grad():
            ours = layer(unary, colors, int(name.partition("_it")[2]))
        rows.append(_close(name, ours[0], vector))
    layer = _layer(vector, filled=False)
    unary.requires_grad_()
    leaves = {"logits": unary, **{theirs: getattr(layer, ours) for theirs, ours in _OUR_NAMES.items()}}
    gradients = torch.autograd.grad((layer(unary, colors, 2) * weights).sum(), list(leaves.values()))
    for key, gradient in zip(leaves, gradients, strict=True):
        rows.append(_close(f"grad_{key}", gradient.reshape(vector.expected[f"grad_{key}"].shape), vector))
    values = torch.from_numpy(inputs["values"]).double()
    for name in sorted(name for name in vector.expected if name.startswith("raw")):
        order, _, kind = name.partition("_")
        lattice = build_lattice(torch.from_numpy(inputs[f"features_{kind}"]).double().flatten(0, 1)[None])
        ours = lattice.filter(values.flatten(1).T[None], reverse=order == "rawrev")[0]
        rows.append(_close(name, ours.T.reshape(values.shape), vector))
    return rows


def _problem(case: dict[str, Any], inputs: dict[str, NDArray[Any]]) -> tuple[Tensor, list[GaussianFilter], list[Any]]:
    """Scores (1, N, K), filters and gains of a case, in float64."""
    classes = case["classes"]
    image = torch.from_numpy(inputs[f"image{classes}"]).permute(2, 0, 1)[None]
    gauss, bilateral = case["params"]["gauss"], case["params"]["bil"]
    numbers: dict[str, Any] = {"spatial_weight": 0.0, "bilateral_weight": 0.0}
    if gauss is not None:
        numbers |= {"spatial_weight": _weight(gauss["compat"], inputs), "spatial_width": gauss["sxy"]}
    if bilateral is not None:
        numbers |= {"bilateral_weight": _weight(bilateral["compat"], inputs)}
        numbers |= {"bilateral_width": bilateral["sxy"], "color_width": bilateral["srgb"]}
    crf = DenseCRF(normalization=_NORMALIZATIONS[case["normalization"]], **numbers)
    filters, gains = crf_kernels(image, crf, num_classes=classes, dtype=torch.float64)
    scores = -torch.from_numpy(inputs[f"unary{classes}"]).double().T[None]
    return scores.contiguous(), filters, gains


def _weight(compat: float | str, inputs: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(compat, str):
        return float(compat)
    values = inputs[compat].astype(float).tolist()
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _probability_rows(name: str, ours: NDArray[Any], expected: NDArray[Any]) -> list[Row]:
    """Wide arrays are stored with every fourth pixel alone."""
    ours = ours[:, :: ours.shape[1] // expected.shape[1]]
    if ours.shape != expected.shape:
        note = f"shape {ours.shape}, expected {expected.shape}"
        return [Row(name=name, error=float("inf"), tolerance=MEAN_TOLERANCE, note=note)]
    others = float((ours.argmax(axis=0) != expected.argmax(axis=0)).mean())
    mean = float(np.abs(ours - expected).mean())
    return [
        Row(name=name, error=mean, tolerance=MEAN_TOLERANCE, note="mean error"),
        Row(name=f"{name} classes", error=others, tolerance=MOST_OTHER_CLASSES, note="share of pixels that differ"),
    ]


def _layer(vector: Vector, *, filled: bool) -> MeanFieldLayer:
    shapes = {key: tuple(shape) for key, shape, _ in vector.manifest["state_dict"]}
    layer = MeanFieldLayer(shapes["compatibility_matrix"][0]).double()
    if filled:
        with torch.no_grad():
            for theirs, ours in _OUR_NAMES.items():
                change = torch.from_numpy(fill_value(theirs, shapes[theirs]))
                getattr(layer, ours).add_(_FILL_FACTOR * change)
    return layer


def _close(name: str, ours: Tensor, vector: Vector) -> Row:
    row = vector.compare_whole(name, ours)
    return Row(name=name, error=row.error, tolerance=LOGITS_TOLERANCE, note=row.note)


def _inputs(vector: Vector) -> dict[str, NDArray[Any]]:
    path = vector.folder / "inputs.npz"
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); fetch the reference vector again") from error
