"""What every network must do, run over the whole table."""

from dataclasses import is_dataclass

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.models import MODELS, create_model, list_models, network_description, network_from_description
from perpixel.models.network import Network
from perpixel.types import Preprocessing, SegOutput

CLASSES = 5


def small(name: str, **options: int) -> Network:
    torch.manual_seed(0)
    return create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone="resnet10t")


@pytest.mark.parametrize("name", list_models())
class TestContract:
    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (96, 70)])
    def test_logits_have_their_stride_at_any_size(self, name: str, size: tuple[int, int]) -> None:
        network = small(name).eval()
        output = network(torch.randn(2, 3, *size))
        assert isinstance(output, SegOutput)
        stride = network.logit_stride
        assert output.logits.shape == (2, CLASSES, -(-size[0] // stride), -(-size[1] // stride))
        assert output.deep == output.border == output.presence == ()

    def test_supervise_gives_in_eval_what_training_gives(self, name: str) -> None:
        network = small(name)
        trained = network.train()(torch.randn(2, 3, 64, 64))
        network.eval().supervise = True
        supervised = network(torch.randn(2, 3, 64, 64))
        for ours, theirs in zip(supervised, trained, strict=True):
            shapes = [x.shape for x in ours] if isinstance(ours, tuple) else ours.shape
            assert shapes == ([x.shape for x in theirs] if isinstance(theirs, tuple) else theirs.shape)

    def test_batch_of_one_trains_and_every_parameter_gets_a_gradient(self, name: str) -> None:
        network = small(name).train()
        size = network.minimum_size
        output = network(torch.randn(1, 3, size, size))
        total = output.logits.square().sum() + sum(x.square().sum() for part in output[1:] for x in part)
        total.backward()
        assert [n for n, p in network.named_parameters() if p.grad is None] == []

    def test_description_rebuilds_the_same_function(self, name: str) -> None:
        network = small(name).eval()
        twin = network_from_description(network_description(network)).eval()
        twin.load_state_dict(network.state_dict())
        x = torch.randn(1, 3, 64, 64)
        assert torch.equal(network(x).logits, twin(x).logits)
        assert twin.preprocessing == network.preprocessing

    def test_compiles_into_one_graph(self, name: str) -> None:
        network = small(name).eval()
        x = torch.randn(1, 3, 64, 64)
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x).logits, network(x).logits)

    def test_default_terms_name_outputs_that_exist(self, name: str) -> None:
        network = small(name).train()
        output = network(torch.randn(2, 3, 64, 64))
        for term in network.default_terms():
            assert term.output == "logits" or term.index < len(getattr(output, term.output))

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
