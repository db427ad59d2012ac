"""What checkpoints of DeepLab v3 and v3+ have in common: the names of an ASPP, and options that weights cannot tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from perpixel.backbones import BackboneConfig, create_trunk
from perpixel.errors import CheckpointError
from perpixel.weights.importers.dilation import dilation_note
from perpixel.weights.importers.importer import Option, StateDict, convolution_weight, listed

__all__ = [
    "ASPPLayout",
    "Rules",
    "chosen_rates",
    "dilated",
    "dilation_options",
    "one_of_trunks",
    "rates_option",
    "read_aspp",
]

Rules = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs, one after the other, as `renamed` applies them."""

_DILATIONS = ("auto", "half", "full")


@dataclass(frozen=True, kw_only=True)
class ASPPLayout:
    """An ASPP under torchvision's names: ``convs.0`` is the 1x1 branch, the last ``convs`` the pooled one."""

    prefix: str
    width: int
    num_rates: int
    separable: bool

    @property
    def rules(self) -> Rules:
        """Their names -> ours."""
        start = "^" + re.escape(self.prefix)
        pooled, branch = rf"{start}convs\.{self.num_rates + 1}\.", rf"{start}convs\.(\d+)\."
        return (
            (rf"{pooled}1\.", "aspp.pooled.conv."),
            (rf"{pooled}2\.", "aspp.pooled.norm."),
            (rf"{branch}0\.(?:body\.)?0\.", r"aspp.branches.\1.depthwise."),
            (rf"{branch}0\.(?:body\.)?1\.", r"aspp.branches.\1.pointwise."),
            (rf"{branch}0\.", r"aspp.branches.\1.conv."),
            (rf"{branch}1\.", r"aspp.branches.\1.norm."),
            (rf"{start}project\.0\.", "aspp.project.conv."),
            (rf"{start}project\.1\.", "aspp.project.norm."),
        )


def read_aspp(tensors: StateDict, prefix: str) -> ASPPLayout:
    """Reads width, number of rates and form of the ASPP under ``prefix``.

    Raises:
        CheckpointError: it has no dilated branch.
    """
    width = convolution_weight(tensors, f"{prefix}convs.0.0").shape[0]
    numbers = {int(key.removeprefix(f"{prefix}convs.").split(".")[0]) for key in tensors if _is_branch(key, prefix)}
    if len(numbers) < 3:
        raise CheckpointError(
            f"'{prefix}convs' holds {len(numbers)} branches; an ASPP has a 1x1, one or more dilated and a pooled one"
        )
    separable = f"{prefix}convs.1.0.weight" not in tensors
    return ASPPLayout(prefix=prefix, width=width, num_rates=len(numbers) - 2, separable=separable)


def rates_option(default: tuple[int, ...] | str, meaning: str = "") -> Option:
    """Returns the option ``atrous_rates``: whole numbers, or ``auto`` where that is the default."""

    def read(value: Any) -> tuple[int, ...] | str:
        if value == default == "auto":
            return "auto"
        rates = list(value) if isinstance(value, list | tuple) else [value]
        if not rates or not all(isinstance(r, int) and not isinstance(r, bool) and r >= 1 for r in rates):
            raise ValueError("a list of whole numbers >= 1, one per dilated branch")
        return tuple(rates)

    return Option(default=default, read=read, help="dilation of each branch of the ASPP" + meaning)


def chosen_rates(rates: tuple[int, ...], layout: ASPPLayout) -> tuple[int, ...]:
    """Returns the rates, if there are as many as branches.

    Raises:
        CheckpointError: there are more or fewer.
    """
    if len(rates) != layout.num_rates:
        raise CheckpointError(
            f"the checkpoint has {layout.num_rates} dilated branches, atrous_rates = {list(rates)} names {len(rates)}: "
            "give one rate per branch, in their order"
        )
    return rates


def dilation_options(own: str) -> dict[str, Option]:
    """Returns the options ``output_stride`` and ``dilation``, which by default take what a code base's trunk has."""
    return {
        "output_stride": Option(
            default="auto",
            allowed=("auto", 8, 16, 32),
            help=f"image pixels per cell of the trunk's last map; below 32 its last stages are dilated; auto: {own}",
        ),
        "dilation": Option(
            default="auto",
            allowed=_DILATIONS,
            help="half: the first block of a dilated stage keeps the previous dilation; full: it is dilated like the "
            "rest; auto: as that code does",
        ),
    }


def dilated(
    trunk: BackboneConfig, options: Mapping[str, Any], *, output_stride: int, dilation: str, fixed: bool = False
) -> tuple[BackboneConfig, str]:
    """Returns the trunk at the chosen output stride and in the chosen convention, and the line for the load report.

    Args:
        trunk: At output stride 32.
        options: Those of `dilation_options`.
        output_stride: What ``auto`` stands for.
        dilation: What ``auto`` stands for.
        fixed: The trunk has this convention alone, and its configuration does not state it.

    Raises:
        CheckpointError: the trunk's convention is fixed, and another is asked for.
    """
    stride = output_stride if options["output_stride"] == "auto" else options["output_stride"]
    chosen: Any = dilation if options["dilation"] == "auto" else options["dilation"]
    if not fixed:
        note = dilation_note({"output_stride": stride, "dilation": chosen})
        return replace(trunk, output_stride=stride, dilation=chosen), note
    if chosen != dilation:
        raise CheckpointError(f"{trunk.name} is dilated by the convention {dilation!r} alone, got dilation={chosen!r}")
    return (
        replace(trunk, output_stride=stride),
        f"weights cannot tell the output stride: {stride} was taken; output_stride chooses another",
    )


def one_of_trunks(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str], *, first: str) -> BackboneConfig:
    """Returns which of our trunks has exactly these tensors, given under our names.

    Args:
        shapes: Our key -> shape.
        names: Trunks that it may be.
        first: Key of the first convolution, which tells the image channels.

    Raises:
        CheckpointError: it is none of them.
    """
    names = list(names)
    if first not in shapes or len(shapes[first]) != 4:
        raise CheckpointError(f"the trunk has no first convolution ({first!r}); known are {', '.join(names)}")
    found = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    for name in names:
        config = BackboneConfig(name=name, in_channels=shapes[first][1])
        with torch.device("meta"):
            own = create_trunk(config).state_dict()
        wanted = {key: tuple(t.shape) for key, t in own.items() if not key.endswith("num_batches_tracked")}
        if wanted == found:
            return config
    raise CheckpointError(
        f"the trunk, whose first convolution is {shapes[first]}, is none of {', '.join(names)}; it holds "
        f"{listed(found, 3)}"
    )


def _is_branch(key: str, prefix: str) -> bool:
    return re.match(rf"{re.escape(prefix)}convs\.\d+\.", key) is not None
