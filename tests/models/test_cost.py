"""What a network costs, by count."""

from __future__ import annotations

import torch
from torch import nn

from perpixel.models.cost import count_macs, count_parameters

MACS = 3 * 4 * 9 * 5 * 6 + 4 * 2 * 5 * 6
"""A 3x3 convolution from 3 to 4 channels and a 1x1 convolution from 4 to 2, at 5x6."""


def two_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def test_count_macs_of_convolutions_equals_the_count_by_hand() -> None:
    assert count_macs(two_convolutions(), torch.zeros(1, 3, 5, 6)) == MACS


def test_count_macs_on_the_meta_device_and_of_two_images_is_in_proportion() -> None:
    with torch.device("meta"):
        assert count_macs(two_convolutions(), torch.empty(2, 3, 5, 6)) == 2 * MACS


def test_count_macs_of_a_transposed_convolution_counts_each_input_pixel() -> None:
    assert count_macs(nn.ConvTranspose2d(3, 2, 2, stride=2), torch.zeros(1, 3, 5, 6)) == 3 * 2 * 4 * 5 * 6


def test_count_parameters_counts_shared_ones_once() -> None:
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer, nn.Linear(3, 1))) == 12 + 4
