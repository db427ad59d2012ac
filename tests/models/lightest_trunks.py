"""The trunks on which tests build every network of the table."""

from __future__ import annotations

from perpixel.models import MODELS

_OF_SEVERAL = {"deeplab_v2": "caffe_resnet50", "refinenet_lw": "resnet10t"}
"""For networks that take several trunks, but not any."""


def lightest_trunk(name: str) -> str | None:
    """The lightest trunk of a network; None where it has one of its own."""
    return "resnet10t" if MODELS[name].takes_any_backbone else _OF_SEVERAL.get(name)
