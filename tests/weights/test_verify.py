from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchseg_layout as ts

from perpixel.errors import CheckpointError
from perpixel.weights import find_vectors, verify
from perpixel.weights.reference_values import MAX_SAMPLES, fill_value, make_input, make_label, sample

SIZE = (64, 96)


@pytest.fixture(scope="module")
def whole_vector(tmp_path_factory) -> Path:
    """A small vector of TorchSeg's FCN-32s, whose outputs the tests' own forward pass made."""
    folder = tmp_path_factory.mktemp("vectors") / "fcn32s"
    folder.mkdir()
    shapes = ts.fcn32s_shapes()
    state = ts.filled(shapes)
    inputs = {"image": (1, 3, *SIZE), "small": (1, 3, 64, 64)}
    arrays, outputs = {}, {}
    with torch.no_grad():
        for name, shape in inputs.items():
            logits, auxiliary = ts.fcn32s_forward(state, "resnet18", None, torch.from_numpy(make_input(name, shape)))
            pred = ts.enlarged(logits, 32)
            values = {"head": logits, "aux": auxiliary, "pred": pred, "prob": pred.log_softmax(1)}
            for output, value in values.items():
                arrays[f"{output}_{name}"] = sample(value.numpy())
                outputs[f"{output}_{name}"] = list(value.shape)
    manifest = {
        "kind": "network",
        "family": "torchseg/fcn32s",
        "options": {},
        "inputs": {name: list(shape) for name, shape in inputs.items()},
        "outputs": outputs,
        "state_dict": [[key, list(shape), "float64"] for key, shape in shapes.items()],
        "compare": {
            "head_image": "logits",
            "aux_image": "deep[0]",
            "pred_image": "logits@input",
            "prob_image": "log_softmax@input",
            "pred_small": "logits@input:small",
        },
    }
    np.savez(folder / "expected.npz", **arrays)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def vector(whole_vector, tmp_path) -> Path:
    folder = tmp_path / "vector"
    folder.mkdir()
    for path in whole_vector.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edited(folder: Path, **changes: object) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    return folder


def perturbed(folder: Path, name: str, amount: float) -> Path:
    with np.load(folder / "expected.npz") as stored:
        arrays = {key: stored[key].copy() for key in stored.files}
    arrays[name].flat[-1] += amount
    np.savez(folder / "expected.npz", **arrays)
    return folder


def test_equal_network_passes_on_every_row(vector):
    result = verify(vector / "manifest.json")
    assert result.status == "passed"
    assert result.passed
    assert not result.failed
    assert [row.name for row in result.rows] == ["head_image", "aux_image", "pred_image", "prob_image", "pred_small"]
    assert max(row.error for row in result.rows) <= 1e-12
    assert "5 of 5 outputs equal" in result.summary()


@pytest.mark.parametrize("name", ["head_image", "pred_small"])
def test_one_changed_value_fails_its_row_only(vector, name):
    result = verify(perturbed(vector, name, 1e-6))
    assert result.failed
    assert not result.passed
    assert [row.name for row in result.rows if not row.passed] == [name]
    assert f"  {name}: error" in result.summary()


def test_expected_nan_fails(vector):
    assert verify(perturbed(vector, "head_image", float("nan"))).failed


def test_option_of_the_manifest_reaches_the_importer(vector):
    result = verify(edited(vector, options={"align_corners": False}))
    assert [row.name for row in result.rows if row.passed] == ["head_image", "aux_image"]


def test_output_of_another_shape_fails_and_says_so(vector):
    outputs = json.loads((vector / "manifest.json").read_text())["outputs"]
    result = verify(edited(vector, outputs={**outputs, "head_image": [1, 4, 9, 9]}))
    assert "shape (1, 4, 2, 3), expected (1, 4, 9, 9)" in result.summary()


def test_weights_that_cannot_be_imported_fail_and_say_why(vector):
    rows = json.loads((vector / "manifest.json").read_text())["state_dict"]
    result = verify(edited(vector, state_dict=rows[:-1]))
    assert result.failed
    assert "missing (ours, not in the checkpoint): auxiliary_head.classifier.bias" in result.summary()


def test_unknown_kind_and_family_are_skipped_and_named(vector):
    result = verify(edited(vector, family="nobody/net"))
    assert (result.status, result.passed, result.failed) == ("skipped", False, False)
    assert "no importer for family 'nobody/net'" in result.summary()
    assert "no checker for kind 'sounds'" in verify(edited(vector, kind="sounds")).summary()


def test_backbone_of_another_layout_is_skipped(vector):
    result = verify(edited(vector, kind="backbone", state_dict=[["features.0.weight", [4, 3, 3, 3], "float64"]]))
    assert "no backbone with keys such as 'features.0.weight'" in result.skipped


def test_nothing_to_compare_is_a_failure(vector):
    result = verify(edited(vector, compare={}))
    assert result.failed
    assert "nothing was compared" in result.summary()


@pytest.mark.parametrize("selector", ["scores", "deep[x]", "logits@output", "log_softmaxlogits", ""])
def test_row_that_cannot_be_read_fails_and_is_named(vector, selector):
    result = verify(edited(vector, compare={"head_image": selector}))
    assert result.failed
    assert "cannot read the row 'head_image'" in result.summary()


def test_row_for_an_output_that_the_network_lacks_fails(vector):
    result = verify(edited(vector, compare={"head_image": "border[0]"}))
    assert "the network gives 0 border" in result.summary()


def test_folders_without_a_readable_vector_are_errors(vector, tmp_path):
    with pytest.raises(CheckpointError, match=r"no manifest.json in it"):
        verify(tmp_path)
    (vector / "expected.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"expected.npz: missing or damaged"):
        verify(vector)
    (vector / "expected.npz").unlink()
    with pytest.raises(CheckpointError, match=r"expected.npz: missing or damaged"):
        verify(vector)
    (vector / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a JSON file"):
        verify(vector)
    (vector / "manifest.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="an object with the key 'kind'"):
        verify(vector)


def test_incomplete_manifest_is_an_error_that_names_the_key(vector):
    manifest = json.loads((vector / "manifest.json").read_text())
    del manifest["inputs"]
    (vector / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="lacks 'inputs'"):
        verify(vector)


def test_vectors_are_found_once_and_in_order(vector, tmp_path):
    second = tmp_path / "a" / "b"
    second.mkdir(parents=True)
    (second / "manifest.json").write_text("{}")
    assert find_vectors([tmp_path, vector, second / "manifest.json"]) == (second, vector)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match=r"no manifest\.json below it"):
        find_vectors([tmp_path / "nothing"])
    with pytest.raises(CheckpointError, match="no such file or folder"):
        find_vectors([tmp_path / "absent"])


def test_published_rule_gives_its_known_values():
    assert fill_value("a.num_batches_tracked", ()).dtype == np.int64
    variance = fill_value("a.running_var", (1000,))
    assert 0.5 <= variance.min() < 0.55 < 1.45 < variance.max() <= 1.5
    assert fill_value("conv.weight", (400, 25, 2, 2)).std() == pytest.approx(0.1, rel=0.02)
    assert fill_value("a.running_mean", (5000,)).std() == pytest.approx(0.1, rel=0.05)
    assert fill_value("norm.weight", (1000,)).min() >= 0.5
    assert fill_value("conv.bias", (5000,)).std() == pytest.approx(0.1, rel=0.05)
    seed = np.random.default_rng(3309110367)  # the CRC-32 of "image"
    np.testing.assert_array_equal(make_input("image", (2, 3)), seed.normal(0, 1, (2, 3)))


def test_published_labels_and_samples_follow_their_rule():
    label = make_label("label", (1, 64, 96), 21)
    assert set(np.unique(label)) == {*range(21), 255}
    assert (label == 255).mean() == pytest.approx(0.05, abs=0.01)
    assert sample(np.arange(MAX_SAMPLES)).size == MAX_SAMPLES
    np.testing.assert_array_equal(sample(np.arange(MAX_SAMPLES + 1)), np.arange(0, MAX_SAMPLES + 1, 2))
