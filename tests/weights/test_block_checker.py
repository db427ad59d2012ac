"""Vectors of single blocks: of any size, told by their keys; a difference fails, a stranger is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import encnet_layout as pe
import numpy as np
import pytest
import torch
from torch import Tensor
from torchseg_layout import Shapes, filled

from perpixel.weights import verify
from perpixel.weights.reference_values import make_input, sample

SHAPE = (2, 6, 3, 4)


def written(folder: Path, shapes: Shapes, outputs: dict[str, Tensor]) -> Path:
    manifest = {
        "kind": "block",
        "inputs": {"x": SHAPE},
        "outputs": {name: list(value.shape) for name, value in outputs.items()},
        "state_dict": [[key, list(shape), "float64"] for key, shape in shapes.items()],
    }
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    np.savez(folder / "expected.npz", **{name: sample(value.numpy()) for name, value in outputs.items()})
    return folder


def computed(shapes: Shapes) -> dict[str, Tensor]:
    state, x = filled(shapes), torch.from_numpy(make_input("x", SHAPE))
    if "codewords" in state:
        return pe.encoding_forward(state["codewords"], state["scale"], x)
    return pe.module_forward(state, "", x)


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [
        (pe.layer_shapes(6, 5), 3),
        (pe.layer_shapes(6, 1), 3),
        (pe.module_shapes(6, 5, 4), 2),
        (pe.module_shapes(6, 3, None), 1),
    ],
)
def test_block_of_any_size_holds_and_a_changed_one_fails(tmp_path: Path, shapes: Shapes, rows: int) -> None:
    outputs = computed(shapes)
    result = verify(written(tmp_path / "block", shapes, outputs))
    assert result.passed, result.summary()
    assert len(result.rows) == rows
    for name in outputs:
        changed = outputs | {name: outputs[name] + 1e-6}
        result = verify(written(tmp_path / f"changed-{name}", shapes, changed))
        assert [row.name for row in result.rows if not row.passed] == [name]


def test_output_that_ours_does_not_give_has_failed(tmp_path: Path) -> None:
    shapes = pe.layer_shapes(6, 5)
    outputs = computed(shapes) | {"residuals": torch.zeros(2, 12, 5, 6)}
    result = verify(written(tmp_path / "block", shapes, outputs))
    assert result.failed
    assert "residuals: error inf > 1e-09 ours gives no such output" in result.summary()


def test_block_with_other_keys_is_skipped_with_the_known_ones(tmp_path: Path) -> None:
    result = verify(written(tmp_path / "block", {"gate.weight": (3, 3)}, {"y": torch.zeros(2)}))
    assert result.status == "skipped"
    assert "no block with keys such as 'gate.weight' (there are encoding-layer, encoding-module" in result.summary()
