from dataclasses import replace

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.models import CRFRNNConfig, create_model
from perpixel.models.crf_rnn import CRFRNN, MeanFieldLayer
from perpixel.ops.mean_field import bilateral_features, exact_filter, normalized, position_features

CLASSES = 4


def network(**changes: object) -> CRFRNN:
    torch.manual_seed(0)
    built = create_model("crf_rnn", replace(CRFRNNConfig.small(), **changes), num_classes=CLASSES)
    assert isinstance(built, CRFRNN)
    torch.nn.init.normal_(built.score_fr.classifier.weight, std=0.5)  # published scores begin with zero everywhere
    return built


def layer_inputs(batch: int = 1, height: int = 6, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    unary = torch.randn(batch, CLASSES, height, width, generator=generator, dtype=torch.float64)
    colors = torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64) * 40
    return unary, colors


def test_layer_batch_equals_loop_of_singles() -> None:
    layer = MeanFieldLayer(CLASSES).double()
    unary, colors = layer_inputs(batch=3)
    together = layer(unary, colors, 3)
    alone = torch.cat([layer(u[None], c[None], 3) for u, c in zip(unary, colors, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_layer_update_is_the_one_of_the_paper() -> None:
    """On colours far apart, where every pixel is alone in the bilateral filter, and one row, against exact sums."""
    config = CRFRNNConfig(spatial_width=0.05)
    layer = MeanFieldLayer(CLASSES, config).double()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    unary, colors = layer_inputs(height=1, width=4)
    colors = torch.arange(4.0, dtype=torch.float64) * 50 + torch.zeros_like(colors)
    q = unary.softmax(1)[0, :, 0]  # (K, N)
    features = [position_features(1, 4, 0.05), bilateral_features(colors, 160.0, 3.0)]
    spatial, bilateral = (normalized(exact_filter(f), "after").filter(q.T[None])[0].T for f in features)
    message = layer.spatial_weights @ spatial + layer.bilateral_weights @ bilateral
    wanted = layer.compatibility @ message + unary[0, :, 0]
    torch.testing.assert_close(layer(unary, colors, 1)[0, :, 0], wanted, rtol=0, atol=1e-9)


def test_layer_gradients_are_right() -> None:
    layer = MeanFieldLayer(2).double()
    unary, colors = layer_inputs(height=2, width=3)
    unary = unary[:, :2].clone().requires_grad_()
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda u, *_: layer(u, colors / 20, 2), (unary, *parameters))


def test_layer_under_autocast_computes_in_float32() -> None:
    layer = MeanFieldLayer(CLASSES)
    unary, colors = (x.float() for x in layer_inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = layer(unary.bfloat16(), colors, 2)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, layer(unary.bfloat16().float(), colors, 2))


def test_network_updates_as_often_as_its_mode_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    crf = network()
    monkeypatch.setattr(crf.crf, "forward", lambda unary, colors, iterations: seen.append(iterations) or unary)
    images = torch.randn(1, 3, 32, 32)
    crf.train()(images)
    crf.eval()(images)
    assert seen == [2, 3]
    published = CRFRNNConfig()
    assert (published.train_iterations, published.iterations) == (5, 10)


def test_network_hands_the_crf_colours_of_0_to_255(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    crf = network().eval()
    monkeypatch.setattr(crf.crf, "forward", lambda unary, colors, iterations: seen.append(colors) or unary)
    images = torch.randn(1, 3, 32, 32)
    crf(images)
    preprocessing = crf.preprocessing
    spread = [float((seen[0] / images)[0, channel].mean()) for channel in range(3)]
    assert spread == pytest.approx([std * 255 / preprocessing.value_range for std in preprocessing.std], rel=1e-5)


def test_network_with_matrices_of_zero_is_its_fcn() -> None:
    crf = network().eval()
    fcn = create_model(
        "fcn_vgg16", {"padding": "same", "width": 8, "fc_width": 32, "upscore_bias": True}, num_classes=CLASSES
    ).eval()
    missing, unexpected = fcn.load_state_dict(crf.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in unexpected} == {"crf"}
    torch.nn.init.zeros_(crf.crf.compatibility)
    images = torch.randn(2, 3, 40, 33)
    torch.testing.assert_close(crf(images).logits, fcn(images).logits)


def test_network_trains_every_parameter_that_its_fcn_does() -> None:
    crf = network().train()
    crf(torch.randn(2, 3, 32, 32)).logits.square().sum().backward()
    idle = {name for name, p in crf.named_parameters() if p.requires_grad and p.grad is None}
    assert not idle
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in crf.crf.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color_width": 0.0}, "the color width of a CRF kernel must be a positive number, got 0.0"),
        ({"iterations": 0}, "at least one update, got 5 in training and 0 in evaluation; for none, take fcn_vgg16"),
        ({"train_iterations": 0}, "at least one update, got 0 in training"),
        ({"width": 0}, "FCN widths must be >= 1, got 0"),
    ],
)
def test_config_impossible_numbers_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        CRFRNNConfig(**change)
