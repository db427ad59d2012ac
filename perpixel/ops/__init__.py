"""Functions without parameters, on tensors of any device."""

from perpixel.ops.borders import border_targets
from perpixel.ops.presence import presence_targets
from perpixel.ops.resize import resize, resize_labels

__all__ = ["border_targets", "presence_targets", "resize", "resize_labels"]
