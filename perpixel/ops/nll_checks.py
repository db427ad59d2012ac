"""What every form of the negative log-likelihood asks of its inputs. Shapes: B batch, K classes, H W labels."""

from __future__ import annotations

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["check_labels", "check_nll_inputs", "check_weight", "computed_in"]


def check_nll_inputs(logits: Tensor, target: Tensor, class_mix: Tensor | None) -> None:
    """Checks scores (B, K, h, w), labels (B, H, W) and a class mix (K,).

    Raises:
        InvalidValue: shapes or dtypes do not fit.
    """
    if logits.ndim != 4 or 0 in logits.shape or not logits.is_floating_point():
        raise InvalidValue(f"scores are floating point (B, K, h, w), got {tuple(logits.shape)} {logits.dtype}")
    if target.ndim != 3 or target.shape[0] != logits.shape[0] or 0 in target.shape or target.is_floating_point():
        raise InvalidValue(
            f"labels are whole numbers (B, H, W) for scores {tuple(logits.shape)}, got {tuple(target.shape)} "
            f"{target.dtype}"
        )
    if class_mix is not None and class_mix.shape != logits.shape[1:2]:
        raise InvalidValue(f"a class mix has one value for each of {logits.shape[1]} classes, got {len(class_mix)}")


def check_weight(weight: Tensor | None, target: Tensor) -> None:
    """Checks that there is one weight per label.

    Raises:
        InvalidValue: they differ in shape.
    """
    if weight is not None and weight.shape != target.shape:
        raise InvalidValue(f"weights {tuple(weight.shape)} and labels {tuple(target.shape)} differ in shape")


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Checks labels (B, H, W) on the CPU; elsewhere it would have to wait for the device.

    Raises:
        InvalidValue: a label is neither a class nor the one to ignore; says which and where.
    """
    if target.device.type != "cpu":
        return
    lowest, highest = (int(value) for value in target.aminmax())
    if lowest >= 0 and highest < num_classes:
        return
    wrong = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if bool(wrong.any()):
        place = tuple(int(i) for i in wrong.nonzero()[0])
        raise InvalidValue(
            f"the label at (image, row, column) {place} is {int(target[place])}; labels lie in [0, {num_classes}) or "
            f"are {ignore_index}, which is ignored"
        )


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype that scores are exponentiated in: at least float32."""
    return torch.promote_types(dtype, torch.float32)
