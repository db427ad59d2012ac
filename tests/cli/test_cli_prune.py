"""``perpixel prune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cli_fakes import Done

from perpixel.labels import LabelSpace
from perpixel.models import FCNConfig, create_model
from perpixel.weights import load_artifact, save_artifact

Cli = Callable[..., Done]


def test_prune_saves_a_narrower_model_and_says_how_to_go_on(run_cli: Cli) -> None:
    network = create_model("icnet", {"width": 4}, num_classes=2)
    save_artifact("full", network, LabelSpace.numbered(2), {"steps": 7})
    done = run_cli("prune", "full", "--out", "half", "--json", "p.json")
    assert done.code == 0, done.err
    assert "parameters became" in done.out
    assert "perpixel train --data DATA --from half" in done.out
    artifact = load_artifact("half")
    assert artifact.network.config.width == 2
    assert artifact.labels == LabelSpace.numbered(2)
    assert artifact.provenance == {
        "pruned_from": "full",
        "keep": 0.5,
        "criterion": "L1 norm",
        "source": {"steps": 7},
    }
    found = json.loads(Path("p.json").read_text())
    assert found["parameters_after"] == sum(p.numel() for p in artifact.network.parameters())
    quarter = run_cli("prune", "half", "--keep", "0.5", "--out", "quarter", "--json", "-")
    assert quarter.json["keep"] == 0.5
    assert load_artifact("quarter").network.config.width == 1


def test_prune_of_what_cannot_be_pruned_exits_2_and_writes_nothing(run_cli: Cli) -> None:
    network = create_model("fcn", FCNConfig.small(), num_classes=2, backbone="test_resnet")
    save_artifact("fcn", network, LabelSpace.numbered(2), {})
    done = run_cli("prune", "fcn", "--out", "half")
    assert (done.code, Path("half").exists()) == (2, False)
    assert "FCN cannot be pruned" in done.err


def test_prune_of_a_folder_that_is_no_model_exits_2(run_cli: Cli) -> None:
    done = run_cli("prune", "nothing", "--out", "half")
    assert done.code == 2
    assert "there is no such folder" in done.err


def test_prune_into_the_model_itself_is_refused_and_leaves_it(run_cli: Cli) -> None:
    save_artifact("full", create_model("icnet", {"width": 4}, num_classes=2), LabelSpace.numbered(2), {})
    done = run_cli("prune", "full", "--out", "./full")
    assert done.code == 2
    assert "--out full is the model itself, which would be lost" in done.err
    assert load_artifact("full").network.config.width == 4


def test_prune_over_another_model_needs_overwrite(run_cli: Cli) -> None:
    for name, width in (("full", 4), ("other", 2)):
        network = create_model("icnet", {"width": width}, num_classes=2)
        save_artifact(name, network, LabelSpace.numbered(2), {"of": name})
    done = run_cli("prune", "full", "--out", "other")
    assert done.code == 2
    assert (
        "--out other holds a model already, which would be lost; choose another folder, or give --overwrite" in done.err
    )
    assert load_artifact("other").provenance == {"of": "other"}
    assert run_cli("prune", "full", "--out", "other", "--overwrite").code == 0
    assert load_artifact("other").provenance["pruned_from"] == "full"
