"""Segmentation by boxes: each is cut out, scored at the network's size, and pasted back by pixel-wise maximum.

`object_examples` cuts what a network learns this from first: every object of a labelled image alone in its box.
Shapes: N boxes, C channels, H W image, K classes. Source: Noh et al., ICCV 2015, arXiv:1505.04366, section 4, and the
release's generate_EDeconvNet_CRF_results. Proposals are the caller's: the paper takes the 50 best of about 2000
EdgeBoxes, of those whose shorter side has at least 112 pixels. Differs from the release, which resizes with MATLAB's
smoothing when it shrinks, and reads its canvas one pixel up and to the left of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.inference.segmenter import SegmentationNetwork
from perpixel.ops import resize, resize_labels
from perpixel.ops.distance_weights import instance_ids
from perpixel.ops.normalize import FULL_SCALE, normalize

__all__ = ["box_scores", "crop_with_zeros", "ensemble_probabilities", "expand_boxes", "object_examples"]

Ensemble = Literal["product", "mean"]
_INPUT_SIZE = (224, 224)
_BATCH_SIZE = 8
_EXAMPLE_SIZE = (250, 250)


def box_scores(
    network: nn.Module,
    image: Tensor,
    boxes: Tensor,
    *,
    input_size: tuple[int, int] = _INPUT_SIZE,
    batch_size: int = _BATCH_SIZE,
) -> Tensor:
    """Merges the scores of boxes into scores of the image.

    The canvas begins at zero, so that what no box covers, and what every box scores below zero, stays zero; among equal
    scores the lowest class, which is background in VOC, wins.

    Args:
        network: Maps images of ``input_size`` to class scores; runs in the mode that it is in, so call ``eval`` first.
        image: Raw pixels (C, H, W), uint8 or 16-bit int32, on the network's device.
        boxes: (N, 4) whole numbers, x0 y0 x1 y1 in pixels, x1 and y1 exclusive; they may reach out of the image, which
            is black there.
        input_size: Height and width that every box is resized to.
        batch_size: Boxes at once.

    Returns:
        (K, H, W) float32.

    Raises:
        InvalidValue: image or boxes have another shape or type, a box is empty, or ``batch_size`` is not positive.
    """
    if image.ndim != 3 or image.dtype not in FULL_SCALE:
        raise InvalidValue(f"an image is raw pixels (C, H, W), uint8 or int32, got {tuple(image.shape)} {image.dtype}")
    if batch_size < 1:
        raise InvalidValue(f"batch_size must be >= 1, got {batch_size}")
    corners = _corners(boxes)
    contract = cast("SegmentationNetwork", network)
    height, width = image.shape[-2:]
    canvas = image.new_zeros((contract.num_classes, height, width), dtype=torch.float32)
    preprocessing = contract.preprocessing
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    with torch.no_grad():
        for start in range(0, len(corners), batch_size):
            batch = corners[start : start + batch_size]
            crops = [normalize(crop_with_zeros(image, box)[None], preprocessing) for box in batch]
            inputs = torch.cat([resize(crop, input_size, align_corners=False) for crop in crops])
            scores = network(inputs.to(dtype)).logits.float()  # (N, K, h, w)
            for box, box_score in zip(batch, scores, strict=True):
                _merge(canvas, box_score, box)
    return canvas


def crop_with_zeros(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Cuts x0 y0 x1 y1 out of (..., H, W); what lies outside is zero."""
    x0, y0, x1, y1 = box
    crop = x.new_zeros((*x.shape[:-2], y1 - y0, x1 - x0))
    inside = _inside(box, x.shape[-2], x.shape[-1])
    if inside is not None:
        left, top, right, bottom = inside
        crop[..., top - y0 : bottom - y0, left - x0 : right - x0] = x[..., top:bottom, left:right]
    return crop


def expand_boxes(boxes: Tensor, factor: float = 1.2) -> Tensor:
    """Enlarges boxes (N, 4) about their centres and rounds outwards; DeconvNet's examples take 1.2 times the object.

    Raises:
        InvalidValue: the boxes are no whole numbers (N, 4), one is empty, or the factor is not positive.
    """
    if not factor > 0:
        raise InvalidValue(f"the factor of boxes must be positive, got {factor}")
    _corners(boxes)
    first, last = boxes[:, :2].double(), boxes[:, 2:].double()
    centre, half = (first + last) / 2, (last - first) / 2 * factor
    return torch.cat([(centre - half).floor(), (centre + half).ceil()], dim=1).to(boxes.dtype)


def object_examples(
    image: Tensor,
    mask: Tensor,
    instances: Tensor | None = None,
    *,
    factor: float = 1.2,
    size: tuple[int, int] = _EXAMPLE_SIZE,
    background: int = 0,
    ignore_index: int = 255,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cuts the examples of DeconvNet's first training stage (section 4): every object alone in its enlarged box.

    The box is squeezed to ``size`` whatever its proportions, the image bilinearly and the labels by the nearest pixel.
    Within it the object keeps its class, ignored pixels stay ignored, and everything else is background. Not stated by
    the paper: what lies outside the image, here black (as in `box_scores`) and background.

    Args:
        image: Raw pixels (C, H, W), uint8 or 16-bit int32.
        mask: (H, W) uint8 classes.
        instances: (H, W) whole numbers, 0 where there is no object; only pixels of a class count, so that a mask of
            instances may mark borders by any number. None takes the connected components of each class (4 neighbours),
            which joins touching objects of one class and splits those that are hidden in part.
        factor: Size of the box beside the object's; both sides round outwards.
        size: Height and width of the examples.
        background: Class of what is no object.
        ignore_index: Value of ignored pixels.

    Returns:
        Image (C, *size) of the image's type and mask (*size) uint8, one pair after another: by rising instance number,
        or class by class from the top.

    Raises:
        InvalidValue: shapes or types do not fit, the factor or the size is not positive, an instance number is
            negative, or an instance holds several classes.
    """
    if image.ndim != 3 or image.dtype not in FULL_SCALE:
        raise InvalidValue(f"an image is raw pixels (C, H, W), uint8 or int32, got {tuple(image.shape)} {image.dtype}")
    if mask.shape != image.shape[1:] or mask.dtype != torch.uint8:
        raise InvalidValue(
            f"the mask of an image of size {tuple(image.shape[1:])} is as large and uint8, got {tuple(mask.shape)} "
            f"{mask.dtype}"
        )
    if min(size) < 1:
        raise InvalidValue(f"the size of examples is (height, width), both at least 1, got {size}")
    objects = _objects(mask, instances, background, ignore_index)
    boxes = [[columns.start, rows.start, columns.stop, rows.stop] for rows, columns in ndimage.find_objects(objects)]
    enlarged = _corners(expand_boxes(torch.tensor(boxes, dtype=torch.long).reshape(-1, 4), factor))
    kept = mask.eq(ignore_index)
    numbers = torch.from_numpy(objects).to(mask.device)
    return (
        _example(image, mask.masked_fill(~(kept | numbers.eq(number)), background), box, size, background)
        for number, box in enumerate(enlarged, start=1)
    )


def ensemble_probabilities(deconvnet: Tensor, fcn: Tensor, *, form: Ensemble = "product") -> Tensor:
    """Joins the scores of DeconvNet and FCN-8s into class probabilities; all (..., K, H, W).

    ``product`` is the release's: softmax of ``deconvnet * max(fcn, 0)``, pixel by pixel and class by class. ``mean`` is
    the paper's text: the mean of the two softmaxes.

    Raises:
        InvalidValue: the shapes differ or the form is unknown.
    """
    if form not in get_args(Ensemble):
        raise InvalidValue(f"form is 'product' or 'mean', got {form!r}")
    if deconvnet.shape != fcn.shape:
        raise InvalidValue(
            f"both scores must have one shape, got {tuple(deconvnet.shape)} and {tuple(fcn.shape)}; "
            "resize one of them, and give both networks the same classes"
        )
    if form == "product":
        return (deconvnet * fcn.clamp(min=0)).softmax(-3)
    return (deconvnet.softmax(-3) + fcn.softmax(-3)) / 2


def _objects(mask: Tensor, instances: Tensor | None, background: int, ignore_index: int) -> NDArray[np.int64]:
    """Numbers the objects of a mask (H, W) from 1 without gaps; 0 is none.

    Raises:
        InvalidValue: as `object_examples`, of the instances.
    """
    if instances is None:
        return instance_ids(mask[None], background=background, ignore_index=ignore_index)[0].cpu().numpy().astype(int)
    if instances.shape != mask.shape or instances.is_floating_point() or instances.dtype == torch.bool:
        raise InvalidValue(
            f"instances are whole numbers of the mask's size {tuple(mask.shape)}, got {tuple(instances.shape)} "
            f"{instances.dtype}"
        )
    if instances.numel() and instances.min() < 0:
        raise InvalidValue(f"instances are numbered from 1, 0 being none, got {int(instances.min())}")
    given, classes = instances.cpu().numpy(), mask.cpu().numpy()
    given = np.where((classes == background) | (classes == ignore_index), 0, given)
    numbers, dense = np.unique(given, return_inverse=True)
    objects: NDArray[np.int64] = dense.reshape(given.shape) + int(len(numbers) > 0 and numbers[0] != 0)
    for number in numbers[numbers != 0].tolist():
        found = np.unique(classes[given == number]).tolist()
        if len(found) > 1:
            raise InvalidValue(f"instance {number} holds the classes {found}; an object has one")
    return objects


def _example(
    image: Tensor, labels: Tensor, box: tuple[int, int, int, int], size: tuple[int, int], background: int
) -> tuple[Tensor, Tensor]:
    pixels = resize(crop_with_zeros(image, box)[None].float(), size, align_corners=False)[0]
    # Zeros outside the image have to mean the background, whatever its number.
    cut = crop_with_zeros(labels.int() - background, box) + background
    target = resize_labels(cut[None], size, align_corners=False)[0]
    return pixels.round().to(image.dtype), target.to(torch.uint8)


def _merge(canvas: Tensor, scores: Tensor, box: tuple[int, int, int, int]) -> None:
    """Raises the canvas (K, H, W) to a box's scores (K, h, w), resized to the box, where these are higher."""
    x0, y0, x1, y1 = box
    inside = _inside(box, canvas.shape[-2], canvas.shape[-1])
    if inside is None:
        return
    left, top, right, bottom = inside
    resized = resize(scores[None], (y1 - y0, x1 - x0), align_corners=False)[0]
    window = canvas[:, top:bottom, left:right]
    torch.maximum(window, resized[:, top - y0 : bottom - y0, left - x0 : right - x0], out=window)


def _inside(box: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int] | None:
    """The part of a box within the image; None where there is none."""
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    return None if left >= right or top >= bottom else (left, top, right, bottom)


def _corners(boxes: Tensor) -> list[tuple[int, int, int, int]]:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.is_floating_point() or boxes.dtype == torch.bool:
        raise InvalidValue(
            f"boxes are whole numbers (N, 4), x0 y0 x1 y1 in pixels, got {tuple(boxes.shape)} {boxes.dtype}"
        )
    corners = [(box[0], box[1], box[2], box[3]) for box in boxes.tolist()]
    for index, (x0, y0, x1, y1) in enumerate(corners):
        if x1 <= x0 or y1 <= y0:
            raise InvalidValue(f"box {index} = {[x0, y0, x1, y1]} is empty; x0 < x1 and y0 < y1 are wanted")
    return corners
