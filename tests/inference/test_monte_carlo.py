"""Monte-Carlo dropout: moments by hand, modes left as they were, and the Segmenter's use of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.inference import Segmenter
from perpixel.inference.monte_carlo import MonteCarloDropout
from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.types import Preprocessing, SegOutput


class Coin(nn.Module):
    """Two classes with the scores +-``strength`` or 0, drawn per pixel; the batch norm would shift them in training."""

    num_classes, align_corners, logit_stride, margin, minimum_size = 2, False, 1, 0, 1
    preprocessing = Preprocessing(mean=(0.0,), std=(1.0,))

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(2, affine=False)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        drawn = self.dropout(torch.ones_like(images[:, :1])) / 2 * self.strength  # strength or 0
        return SegOutput(self.norm(torch.cat([drawn, -drawn], 1)))


def bayesian(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model("segnet", {"width": 2, "bayesian": True, **options}, num_classes=3)


def test_moments_of_a_coin_are_those_of_its_two_sides() -> None:
    result = MonteCarloDropout(Coin(strength=1.0), samples=400, seed=0).sample(torch.zeros(1, 1, 20, 20))
    high = 1 / (1 + math.exp(-2 / math.sqrt(1 + 1e-5)))
    mean, variance = (high + 0.5) / 2, ((high - 0.5) / 2) ** 2
    assert result.probabilities[0, 0].mean().item() == pytest.approx(mean, abs=2e-3)
    assert result.variance[0, 0].mean().item() == pytest.approx(variance, rel=0.02)
    torch.testing.assert_close(result.uncertainty, result.variance.mean(1))
    one, both = (-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (high, mean))
    assert result.entropy.mean().item() == pytest.approx(both, abs=3e-3)
    assert result.mutual_information.mean().item() == pytest.approx(both - (one + math.log(2)) / 2, abs=3e-3)


def test_moments_equal_those_of_the_samples_kept_whole() -> None:
    network = bayesian().double().eval()
    x = torch.randn(1, 3, 33, 40, dtype=torch.float64)
    result = MonteCarloDropout(network, samples=5, seed=3).sample(x)
    torch.manual_seed(3)
    for module in network.modules():
        module.training = isinstance(module, nn.Dropout)
    with torch.no_grad():
        kept = torch.stack([network(x).logits.softmax(1) for _ in range(5)])
    torch.testing.assert_close(result.probabilities, kept.mean(0))
    torch.testing.assert_close(result.variance, kept.var(0, correction=0))
    entropies = torch.special.entr(kept).sum(2).mean(0)
    torch.testing.assert_close(result.mutual_information, result.entropy - entropies)


def test_sampling_leaves_modes_statistics_and_random_numbers_as_they_were() -> None:
    network = bayesian().train()
    network.backbone.eval()  # type: ignore[union-attr]
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    sampler = MonteCarloDropout(network, samples=2, seed=1)
    first = sampler.sample(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())
    assert torch.equal(torch.get_rng_state(), generator)
    again = sampler.sample(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(first.variance, again.variance)
    assert first.variance.max() > 0


def test_without_a_seed_samples_differ_from_call_to_call() -> None:
    sampler = MonteCarloDropout(bayesian(), samples=2)
    x = torch.randn(1, 3, 32, 32)
    assert not torch.equal(sampler.sample(x).probabilities, sampler.sample(x).probabilities)


def test_segmenter_takes_it_in_the_networks_place() -> None:
    sampler = MonteCarloDropout(bayesian(), samples=3, seed=5)
    segmenter = Segmenter(sampler, LabelSpace.numbered(3))
    images = torch.randint(0, 256, (1, 3, 40, 36), dtype=torch.uint8)
    probabilities = segmenter.logits(images).softmax(1)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 40, 36))
    result = segmenter(images[0])
    torch.testing.assert_close(torch.from_numpy(result.probabilities), probabilities[0])


def test_no_samples_and_networks_without_dropout_are_refused() -> None:
    with pytest.raises(InvalidValue, match="samples must be >= 1, got 0"):
        MonteCarloDropout(bayesian(), samples=0)
    with pytest.raises(InvalidValue, match="SegNet has no dropout, so all its samples are one; build it with bayesian"):
        MonteCarloDropout(bayesian(bayesian=False))
