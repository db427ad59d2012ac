"""Networks without training, whose answer is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.types import Preprocessing, SegOutput

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class FakeNetwork(nn.Module):
    """Scores of class k are a fixed mix of the colours, averaged over cells of ``stride`` pixels; no convolution.

    With ``margin`` the scores cover the image less its margin, as those of valid-convolution networks do.
    """

    def __init__(
        self, num_classes=3, *, stride=1, align_corners=False, preprocessing=PLAIN, margin=0, minimum_size=1, multiple=1
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(num_classes)
        channels = preprocessing.num_channels
        self.mix = nn.Parameter(torch.randn(num_classes, channels, generator=generator))
        self.norm = nn.BatchNorm2d(num_classes)  # behaves differently in training
        self.num_classes = num_classes
        self.logit_stride = stride
        self.align_corners = align_corners
        self.preprocessing = preprocessing
        self.margin = margin
        self.minimum_size = minimum_size
        self.multiple = multiple
        self.seen: list[Tensor] = []

    def valid_size(self, height, width):
        sides = (max(side, self.minimum_size) for side in (height, width))
        return tuple(-(-side // self.multiple) * self.multiple for side in sides)

    def forward(self, images):
        self.seen.append(images)
        scores = torch.einsum("kc,bchw->bkhw", self.mix.to(images.dtype), images)
        if self.margin:
            scores = scores[:, :, self.margin : -self.margin, self.margin : -self.margin]
        scores = F.avg_pool2d(scores, self.logit_stride, ceil_mode=True) if self.logit_stride > 1 else scores
        return SegOutput(self.norm(scores))


class BrightnessNetwork(FakeNetwork):
    """Class k is right where the first channel holds the value 20 k: the prediction is known for every pixel."""

    def forward(self, images):
        self.seen.append(images)
        wanted = torch.arange(self.num_classes) * 20 / 255
        return SegOutput(-(images[:, :1] - wanted.view(1, -1, 1, 1)).abs())


@pytest.fixture(scope="session")
def fake_network():
    """Builds a FakeNetwork."""
    return FakeNetwork


@pytest.fixture(scope="session")
def brightness_network():
    """Builds a BrightnessNetwork."""
    return BrightnessNetwork


@pytest.fixture(scope="session")
def raw_images():
    """Returns random raw pixels of a shape."""

    def build(*shape, seed=0):
        return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)

    return build
