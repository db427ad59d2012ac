from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import DFNConfig, FCNConfig, create_model
from perpixel.types import Preprocessing
from perpixel.weights import artifact, load_artifact, save_artifact

LABELS = LabelSpace.numbered(3)
PROVENANCE = {"recipe": "dfn", "steps": 40, "scores": {"mean_iou": 0.5, "per_class": [0.1, float("nan")]}}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = create_model("fcn", FCNConfig.small(), num_classes=3, backbone="resnet18")
    network.preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5), channel_order="bgr")
    return network.eval()


@pytest.fixture
def folder(network, tmp_path) -> Path:
    return save_artifact(tmp_path / "runs" / "best", network, LABELS, PROVENANCE)


def edited(folder: Path, **changes: object) -> Path:
    path = folder / "model.yaml"
    content = yaml.safe_load(path.read_text())
    content.update(changes)
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return folder


def test_artifact_gives_back_the_same_function_labels_and_provenance(network, folder):
    loaded = load_artifact(folder)
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(loaded.network(images).logits, network(images).logits)
    assert loaded.labels == LABELS
    assert loaded.preprocessing == loaded.network.preprocessing == network.preprocessing
    assert loaded.provenance["steps"] == 40
    assert loaded.provenance["scores"]["mean_iou"] == 0.5
    assert not loaded.network.training
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "model.yaml"]
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_dfn_artifact_in_float64_stays_float64_and_keeps_its_options(tmp_path):
    config = DFNConfig(width=8, border_width=4, head_expansion=2, attention_order="high_low", border_network=False)
    network = create_model("dfn", config, num_classes=2, backbone="resnet18").double()
    save_artifact(tmp_path / "a", network, LabelSpace.numbered(2), {})
    loaded = load_artifact(tmp_path / "a").network
    assert loaded.config == config
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}


def test_given_state_dict_is_stored_in_place_of_the_networks_own(network, tmp_path):
    average = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    save_artifact(tmp_path / "a", network, LABELS, {}, state_dict=average)
    assert load_artifact(tmp_path / "a").network.head.classifier.weight.abs().sum() == 0
    with pytest.raises(CheckpointError, match=r"state_dict: .*missing: .* and .* more"):
        save_artifact(tmp_path / "b", network, LABELS, {}, state_dict={})


def test_new_artifact_replaces_the_old_one(network, folder):
    save_artifact(folder, network, LABELS, {"steps": 80})
    assert load_artifact(folder).provenance == {"steps": 80}
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_failed_save_leaves_the_old_artifact(network, folder, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "save_file", no_space)
    with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
        save_artifact(folder, network, LABELS, {"steps": 80})
    assert load_artifact(folder).provenance["steps"] == 40
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_folder_with_other_files_is_never_replaced(network, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match=r"holds more than an artifact \(thesis.tex\)"):
        save_artifact(tmp_path, network, LABELS, {})
    with pytest.raises(CheckpointError, match="is a file"):
        save_artifact(tmp_path / "thesis.tex", network, LABELS, {})
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_labels_and_provenance_that_do_not_fit_are_refused(network, tmp_path):
    with pytest.raises(InvalidValue, match="has 4 classes, the network 3"):
        save_artifact(tmp_path / "a", network, LabelSpace.numbered(4), {})
    with pytest.raises(InvalidValue, match="provenance 'device'"):
        save_artifact(tmp_path / "a", network, LABELS, {"device": torch.device("cpu")})
    assert not (tmp_path / "a").exists()


def test_what_is_no_artifact_folder_is_an_error_with_the_way_out(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_artifact(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is a file, not an artifact folder"):
        load_artifact(folder / "model.yaml")
    with pytest.raises(CheckpointError, match=r"model.safetensors and model.yaml missing; give its best/ folder"):
        load_artifact(folder.parent)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not an artifact, model.safetensors missing"):
        load_artifact(folder)


def test_damaged_tensors_are_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged"):
        load_artifact(folder)


def test_newer_format_is_an_error_that_says_to_update(folder):
    with pytest.raises(CheckpointError, match=r"artifact format 99 was written by perpixel .*: update perpixel"):
        load_artifact(edited(folder, perpixel_artifact=99))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perpixel_artifact": None}, "no artifact of perpixel"),
        ({"labels": None}, "lacks labels"),
        ({"network": {"name": "dfm"}}, "does not describe a network"),
        ({"labels": LabelSpace.numbered(7).to_dict()}, "has 7 classes, the network 3"),
    ],
)
def test_description_that_does_not_fit_is_an_error(folder, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_artifact(edited(folder, **changes))


def test_description_that_is_no_yaml_is_an_error(folder):
    (folder / "model.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match="not a YAML file"):
        load_artifact(folder)


def test_tensors_that_do_not_fit_are_listed(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("head.classifier.bias")
    tensors["extra"] = torch.zeros(1)
    tensors["head.block.norm.weight"] = torch.zeros(5)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_artifact(folder)
    for part in (
        "1 missing: head.classifier.bias",
        "1 left over: extra",
        "head.block.norm.weight (5,) instead of (16,)",
    ):
        assert part in str(caught.value)
