"""PSPNet's sizes in a checkpoint of any code base: what shapes tell, and the options for what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import PSPNetConfig
from perpixel.weights.importers.importer import Option, StateDict, convolution_weight

__all__ = ["PyramidNames", "pyramid_note", "pyramid_options", "read_pspnet"]


@dataclass(frozen=True, kw_only=True)
class PyramidNames:
    """Where a code base keeps the convolutions that sizes are read from."""

    branch: str
    """Of branch ``{}``, counted from ``first_branch``."""
    fusion: str
    """Over the concatenation."""
    classifier: str
    auxiliary: str | None = None
    """The classifier of the auxiliary head; None where the code base has no such head."""
    first_branch: int = 0


def pyramid_options() -> dict[str, Option]:
    """Returns the options ``bins``, ``pooling`` and ``align_corners``, none of which leaves a trace in weights."""
    return {
        "bins": Option(
            default=(1, 2, 3, 6), read=_bins, help="bins along a side, one number per branch, in their order"
        ),
        "pooling": Option(
            default="adaptive",
            allowed=("adaptive", "fixed"),
            help="how the map is divided: adaptive, or by windows of a fixed kernel (Caffe)",
        ),
        "align_corners": Option(
            default=True, allowed=(True, False), help="how branches and scores are resized; the public codes align them"
        ),
    }


def read_pspnet(
    tensors: StateDict, names: PyramidNames, options: Mapping[str, Any], **forms: Any
) -> tuple[PSPNetConfig, int]:
    """Reads PSPNet's configuration and number of classes.

    Args:
        tensors: The checkpoint.
        names: Its names.
        options: The resolved `pyramid_options`.
        forms: Fields of the configuration in which the code base differs from the default.

    Raises:
        CheckpointError: a convolution is missing, or there are more or fewer branches than ``bins``.
    """
    bins = options["bins"]
    branches = 0
    while f"{names.branch.format(names.first_branch + branches)}.weight" in tensors:
        branches += 1
    if branches != len(bins):
        raise CheckpointError(
            f"the checkpoint has {branches} pooled branches, bins = {list(bins)} names {len(bins)}: give one number "
            "per branch, in their order"
        )
    fusion = convolution_weight(tensors, names.fusion)
    classifier = convolution_weight(tensors, names.classifier)
    auxiliary = names.auxiliary is not None and f"{names.auxiliary}.weight" in tensors
    if auxiliary:
        forms = {**forms, "auxiliary_width": convolution_weight(tensors, str(names.auxiliary)).shape[1]}
    config = PSPNetConfig(
        bins=bins,
        pooling=options["pooling"],
        align_corners=options["align_corners"],
        bin_width=convolution_weight(tensors, names.branch.format(names.first_branch)).shape[0],
        width=fusion.shape[0],
        kernel_size=fusion.shape[2],
        classifier_kernel_size=classifier.shape[2],
        auxiliary=auxiliary,
        **forms,
    )
    return config, classifier.shape[0]


def pyramid_note(options: Mapping[str, Any]) -> str:
    """Returns the report's line on the bins that were assumed."""
    bins = ", ".join(map(str, options["bins"]))
    return (
        f"weights cannot tell the bins: {bins} were taken with {options['pooling']} pooling; bins= and pooling= choose"
    )


def _bins(value: Any) -> tuple[int, ...]:
    bins = [value] if isinstance(value, int) else value
    whole = isinstance(bins, list | tuple) and all(isinstance(n, int) and not isinstance(n, bool) for n in bins)
    if not whole or not bins or min(bins) < 1:
        raise ValueError("a list of whole numbers >= 1, one per branch")
    return tuple(bins)
