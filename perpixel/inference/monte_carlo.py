"""Monte-Carlo dropout: many samples of one network, their mean as the prediction, their spread as its uncertainty.

Shapes: B batch, C channels, H W image, K classes, h w scores, N samples. Source: Kendall, Badrinarayanan, Cipolla,
*Bayesian SegNet*, BMVC 2017, arXiv:1511.02680.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing, SegOutput

__all__ = ["MonteCarlo", "MonteCarloDropout"]


@dataclass(frozen=True, kw_only=True)
class MonteCarlo:
    """What N samples say together."""

    probabilities: Tensor
    """Mean of the samples' softmaxes (B, K, h, w)."""
    variance: Tensor
    """Their variance (B, K, h, w), divided by N; 0 where all samples agree."""
    entropy: Tensor
    """Entropy of the mean in nats (B, h, w), in [0, log K]: doubt of every kind."""
    mutual_information: Tensor
    """Entropy of the mean less mean entropy of the samples in nats (B, h, w), >= 0: doubt that more data would lift."""

    @property
    def uncertainty(self) -> Tensor:
        """Per-pixel uncertainty (B, h, w): the variance, averaged over the classes, as the paper shows it."""
        return self.variance.mean(1)


class MonteCarloDropout(nn.Module):
    """A network whose dropout stays on while everything else, batch norm above all, is in evaluation mode.

    It keeps the contract of a network, so a `Segmenter` or an evaluation takes it in the network's place: its logits
    are the logarithms of the mean probabilities, whose softmax they are. `sample` gives the spread too.

    Args:
        network: Has dropout somewhere, such as ``segnet`` with ``bayesian``; stays as it is.
        samples: N >= 1; that the paper's gains end at about 40 is recalled, not verified.
        seed: The same samples in every call; None draws on from PyTorch's own generator.

    Raises:
        InvalidValue: ``samples`` is not positive, or the network drops nothing.
    """

    def __init__(self, network: nn.Module, *, samples: int = 40, seed: int | None = None) -> None:
        super().__init__()
        if samples < 1:
            raise InvalidValue(f"samples must be >= 1, got {samples}")
        if not any(isinstance(module, _DropoutNd) and module.p > 0 for module in network.modules()):
            raise InvalidValue(
                f"{type(network).__name__} has no dropout, so all its samples are one; build it with bayesian=True"
            )
        contract: Any = network
        self.network = network
        self.samples = samples
        self.seed = seed
        self.num_classes: int = contract.num_classes
        self.align_corners: bool = contract.align_corners
        self.logit_stride: int = contract.logit_stride
        self.preprocessing: Preprocessing = contract.preprocessing
        self.margin: int = contract.margin
        self.minimum_size: int = contract.minimum_size

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the sizes that the network takes."""
        contract: Any = self.network
        size: tuple[int, int] = contract.valid_size(height, width)
        return size

    def forward(self, images: Tensor) -> SegOutput:
        """Maps normalised images (B, C, H, W) to logarithms of mean probabilities (B, K, h, w)."""
        probabilities = self.sample(images).probabilities
        return SegOutput(probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log())

    def sample(self, images: Tensor) -> MonteCarlo:
        """Runs the network N times on normalised images (B, C, H, W); memory does not grow with N. No gradients."""
        with torch.no_grad(), _dropout_on(self.network), _seeded(self.seed, images.device):
            mean = squares = sample_entropy = torch.zeros((), device=images.device)
            for n in range(1, self.samples + 1):
                logits = self.network(images).logits
                sample = (logits.float() if logits.element_size() < 4 else logits).softmax(1)
                change = sample - mean
                mean = mean + change / n  # Welford's running mean and sum of squared deviations
                squares = squares + change * (sample - mean)
                sample_entropy = sample_entropy + _entropy(sample) / self.samples
        entropy = _entropy(mean)
        return MonteCarlo(
            probabilities=mean,
            variance=squares / self.samples,
            entropy=entropy,
            mutual_information=(entropy - sample_entropy).clamp(min=0),
        )


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the classes in nats: (B, K, h, w) to (B, h, w)."""
    entropy: Tensor = torch.special.entr(probabilities).sum(1)
    return entropy


@contextmanager
def _dropout_on(network: nn.Module) -> Iterator[None]:
    """Evaluation mode but for dropout; every single module gets its own mode back."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    for module in training:
        if isinstance(module, _DropoutNd):
            module.training = True
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws from a generator that begins with the seed, and leaves PyTorch's own as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(seed)
        yield
