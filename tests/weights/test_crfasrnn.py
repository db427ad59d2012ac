"""sadeepj/crfasrnn: FCN-8s's keys and three matrices."""

from __future__ import annotations

import pytest
import torch
from fcn_layout import fcn_shapes, filled

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.models.crf_rnn import CRFRNN
from perpixel.weights import import_checkpoint

CLASSES = 3
MATRICES = {
    "crfrnn.spatial_ker_weights": "spatial_weights",
    "crfrnn.bilateral_ker_weights": "bilateral_weights",
    "crfrnn.compatibility_matrix": "compatibility",
}


def checkpoint() -> dict[str, torch.Tensor]:
    shapes = fcn_shapes(8, bias=True, classes=CLASSES)
    return filled({**shapes, **dict.fromkeys(MATRICES, (CLASSES, CLASSES))})


def test_crfasrnn_is_recognised_and_filled() -> None:
    state = checkpoint()
    imported = import_checkpoint(state)
    network = imported.network
    assert isinstance(network, CRFRNN)
    assert imported.report.family == "sadeepj/crfasrnn"
    assert network.config.iterations == 10
    assert network.preprocessing.channel_order == "bgr"
    for theirs, ours in MATRICES.items():
        assert torch.equal(getattr(network.crf, ours), state[theirs])


def test_crfasrnn_logits_are_mean_field_on_those_of_its_fcn() -> None:
    state = checkpoint()
    network = import_checkpoint(state, iterations=2).network
    fcn = import_checkpoint({key: value for key, value in state.items() if not key.startswith("crfrnn.")}).network
    images = torch.randn(2, 3, 20, 24, dtype=torch.float64) * 50
    with torch.no_grad():
        wanted = network.crf(fcn(images).logits, images, 2)
        torch.testing.assert_close(network(images).logits, wanted, rtol=0, atol=1e-10)
    assert fcn.preprocessing == network.preprocessing


@pytest.mark.parametrize("value", [0, 2.5, True, "many"])
def test_crfasrnn_iterations_that_are_no_count_are_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"iterations is the number of mean-field updates .*, got"):
        import_checkpoint(checkpoint(), "sadeepj/crfasrnn", iterations=value)


def test_crfasrnn_without_a_matrix_is_refused() -> None:
    state = checkpoint()
    del state["crfrnn.compatibility_matrix"]
    with pytest.raises(CheckpointError, match=r"1 missing .*crf\.compatibility"):
        import_checkpoint(state)


def test_crfasrnn_asked_for_an_fcn_names_it() -> None:
    state = filled(fcn_shapes(8, bias=True))
    with pytest.raises(CheckpointError, match=r"not of family sadeepj/crfasrnn .*it looks like sadeepj/fcn8s"):
        import_checkpoint(state, "sadeepj/crfasrnn")
