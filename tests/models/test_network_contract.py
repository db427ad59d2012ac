"""What every network must do, run over the whole table."""

from dataclasses import is_dataclass

import pytest
import torch
from lightest_trunks import lightest_trunk

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import MODELS, create_model, list_models, network_description, network_from_description
from perpixel.models.network import Network
from perpixel.types import Preprocessing, SegOutput

CLASSES = 5
OWN_SIZES = {"unet_original"}
"""Networks that the design excuses from taking any size."""
NO_GRAPH = {"crf_rnn", "zoomout"}
"""Networks whose published forward depends on the image's content (a lattice, superpixels), so that no graph holds it.
Zoom-out's small form works on a grid instead; tests/models/test_zoomout.py exports that."""


def small(name: str) -> Network:
    torch.manual_seed(0)
    return create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=lightest_trunk(name))


def images(network: Network, *, batch: int = 1, size: tuple[int, int] = (64, 64), valid: bool = True) -> torch.Tensor:
    """Random images of the least size that holds ``size``; without ``valid`` only the minimum counts."""
    height, width = network.valid_size(*size) if valid else (max(side, network.minimum_size) for side in size)
    return torch.randn(batch, network.preprocessing.num_channels, height, width)


@pytest.mark.parametrize("name", list_models())
class TestContract:
    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (96, 70)])
    def test_logits_cover_the_image_at_any_size(self, name: str, size: tuple[int, int]) -> None:
        network = small(name).eval()
        x = images(network, batch=2, size=size, valid=name in OWN_SIZES)
        output = network(x)
        assert isinstance(output, SegOutput)
        assert output.logits.shape[:2] == (2, CLASSES)
        stride = network.logit_stride
        for side, cells in zip(x.shape[-2:], output.logits.shape[-2:], strict=True):
            inner = side - 2 * network.margin
            assert -(-inner // stride) <= cells <= (inner if stride == 1 else -(-(inner - 1) // stride) + 1)
        assert output.deep == output.border == output.presence == ()

    def test_supervise_gives_in_eval_what_training_gives(self, name: str) -> None:
        network = small(name)
        x = images(network, batch=2)
        trained = network.train()(x)
        network.eval().supervise = True
        supervised = network(x)
        for ours, theirs in zip(supervised, trained, strict=True):
            shapes = [part.shape for part in ours] if isinstance(ours, tuple) else ours.shape
            assert shapes == ([part.shape for part in theirs] if isinstance(theirs, tuple) else theirs.shape)

    def test_batch_of_one_trains_and_every_parameter_gets_a_gradient(self, name: str) -> None:
        network = small(name).train()
        size = network.minimum_size
        output = network(images(network, size=(size, size)))
        total = output.logits.square().sum() + sum(x.square().sum() for part in output[1:] for x in part)
        total.backward()
        assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_description_rebuilds_the_same_function(self, name: str) -> None:
        network = small(name).eval()
        twin = network_from_description(network_description(network)).eval()
        twin.load_state_dict(network.state_dict())
        x = images(network)
        assert torch.equal(network(x).logits, twin(x).logits)
        assert twin.preprocessing == network.preprocessing

    def test_compiles_into_one_graph(self, name: str) -> None:
        if name in NO_GRAPH:
            pytest.skip("the graph of its published form would depend on the image's content")
        network = small(name).eval()
        x = images(network)
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x).logits, network(x).logits)

    def test_exports_its_eval_forward(self, name: str) -> None:
        if name in NO_GRAPH:
            pytest.skip("the graph of its published form would depend on the image's content")
        network = small(name).eval()
        x = images(network)
        exported = torch.export.export(network, (x,)).module()
        assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-6)

    def test_default_terms_give_a_finite_loss(self, name: str) -> None:
        network = small(name).train()
        x = images(network, batch=2)
        criterion = SegmentationLoss(
            network.default_terms(), num_classes=CLASSES, align_corners=network.align_corners, margin=network.margin
        )
        value = criterion(network(x), torch.randint(0, CLASSES, (2, *x.shape[-2:])))
        assert torch.isfinite(value.total)
        assert set(value.parts) == {term.name for term in network.default_terms()}

    def test_config_is_a_frozen_dataclass(self, name: str) -> None:
        assert is_dataclass(MODELS[name].config)
        with pytest.raises(AttributeError):
            MODELS[name].config().width = 3


def test_create_model_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(InvalidValue, match="unknown model 'dfm'; did you mean 'dfn'"):
        create_model("dfm", num_classes=2)


def test_create_model_unknown_option_offers_the_nearest() -> None:
    with pytest.raises(InvalidValue, match="dfn has no option 'widht'; did you mean 'width'"):
        create_model("dfn", {"widht": 3}, num_classes=2, backbone="resnet10t")


def test_create_model_config_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidValue, match="dfn takes a DFNConfig, got FCNConfig"):
        create_model("dfn", MODELS["fcn"].config(), num_classes=2, backbone="resnet10t")


def test_network_description_of_a_stranger_is_refused() -> None:
    with pytest.raises(InvalidValue, match="Network is not in MODELS"):
        network_description(Network(None, 2, preprocessing=Preprocessing(), logit_stride=1, align_corners=False))


def test_create_model_backbone_for_a_network_of_one_piece_is_refused() -> None:
    with pytest.raises(InvalidValue, match="unet is a network of one piece and takes no backbone"):
        create_model("unet", num_classes=2, backbone="resnet10t")
