from typing import Any

import pytest
import torch

from perpixel.backbones import BackboneConfig
from perpixel.models import create_model, network_description, network_from_description


@pytest.mark.parametrize(
    ("name", "options", "maps"),
    [
        ("fcn", {"auxiliary": True}, 2),
        ("fcn", {"auxiliary": False}, 1),
        ("pspnet", {"auxiliary": True}, 2),
        ("pspnet", {"auxiliary": False}, 1),
        ("deeplab_v3", {"auxiliary": True, "auxiliary_stage": -3}, 3),
        ("deeplab_v3", {"auxiliary": False}, 1),
        ("gcn", {}, 4),
    ],
)
def test_create_model_asks_the_trunk_for_the_maps_that_it_reads(name: str, options: dict[str, Any], maps: int) -> None:
    with torch.device("meta"):
        network: Any = create_model(name, options, num_classes=3, backbone=BackboneConfig(name="resnet50"))
        assert len(network.backbone(torch.zeros(1, 3, 64, 64))) == maps
        again: Any = network_from_description(network_description(network))
    assert again.backbone.config == network.backbone.config


def test_create_model_fewer_maps_leave_the_weights_as_they_are() -> None:
    with torch.device("meta"):
        one, two = (
            create_model("fcn", {"auxiliary": aux}, num_classes=3, backbone="resnet18") for aux in (False, True)
        )
    kept = {key for key in two.state_dict() if not key.startswith("auxiliary_head.")}
    assert set(one.state_dict()) == kept
