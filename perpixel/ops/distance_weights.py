"""U-Net's weight map: pixels between two close objects weigh most (Ronneberger et al. 2015, arXiv:1505.04597, eq. 2).

``w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))**2 / (2 sigma**2))``: d1 and d2 are the distances in pixels from x to the
nearest and to the second nearest object (cell), and w_c balances the classes.

Not verified, since the paper does not say: the form of w_c (inverse frequency here), whether the second term holds in
the background alone (it does here unless ``inside``), how touching objects are cut apart (`cut_touching` is one way).
An image with fewer than two objects has no second term.

Shapes: B batch, H W image, N pixels that are weighed.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["border_term", "class_balance", "cut_touching", "distance_weights", "instance_ids"]

_FAR = 1 << 14  # stands for "no object in this column"; its square still fits 32 bits
_LARGEST_INT32 = 2**31 - 1
_NEGLIGIBLE = 2.0**-24  # a weight that float32 does not see beside 1
_SHIFTS_PER_ROUND = 4
_BLOCK = {False: 1 << 14, True: 1 << 30}
"""Pixels at once: on a CPU few enough to stay in its cache and below the size at which PyTorch starts threads, whose
meetings cost more than such small steps; on a GPU all."""
_MOST_LABELS = 256


def distance_weights(
    target: Tensor,
    *,
    instances: Tensor | None = None,
    w0: float = 10.0,
    sigma: float = 5.0,
    background: int = 0,
    balance: Literal["frequency", "none"] = "frequency",
    connectivity: Literal[4, 8] = 4,
    inside: bool = False,
    ignore_index: int = 255,
) -> Tensor:
    """Returns w (B, H, W) float32 for label maps (B, H, W); zero where a pixel is ignored.

    Args:
        target: Labels in [0, 255), or ``ignore_index``.
        instances: (B, H, W) whole numbers, 0 where there is no object; None takes the connected components of the
            classes other than ``background``.
        w0: Weight of the border term, >= 0.
        sigma: Its width in pixels, > 0.
        background: Class that is no object.
        balance: w_c: ``frequency`` is pixels / (classes present * pixels of the class) per image, ``none`` is 1.
        connectivity: Neighbours that make pixels of one class one object.
        inside: Give the border term to the objects' own pixels too (d1 = 0 there).
        ignore_index: Label of pixels that belong to nothing.

    Raises:
        InvalidValue: an argument is out of range, or shapes differ.
    """
    if target.ndim != 3:
        raise InvalidValue(f"distance weights are made of labels (B, H, W), got shape {tuple(target.shape)}")
    if balance not in ("frequency", "none"):
        raise InvalidValue(f"balance is 'frequency' or 'none', got {balance!r}")
    if instances is None:
        instances = instance_ids(target, background=background, connectivity=connectivity, ignore_index=ignore_index)
    elif instances.shape != target.shape:
        raise InvalidValue(f"instances {tuple(instances.shape)} and labels {tuple(target.shape)} differ in shape")
    ignored = target == ignore_index
    weights = border_term(instances, w0=w0, sigma=sigma, inside=inside)
    weights += class_balance(target, ignore_index=ignore_index) if balance == "frequency" else 1.0
    return weights.masked_fill_(ignored, 0.0)


def instance_ids(
    target: Tensor, *, background: int = 0, connectivity: Literal[4, 8] = 4, ignore_index: int = 255
) -> Tensor:
    """Numbers the connected components of every class but the background: (B, H, W) int32 on the labels' device.

    Numbers start at 1 in each image; background and ignored pixels are 0. Computed on the CPU.

    Raises:
        InvalidValue: ``connectivity`` is neither 4 nor 8.
    """
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is 4 or 8 neighbours, got {connectivity}")
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    labels = target.detach().cpu().numpy()
    ids = np.zeros(labels.shape, dtype=np.int32)
    for image, numbered in zip(labels, ids, strict=True):
        count = 0
        for label in np.unique(image).tolist():
            if label in (background, ignore_index):
                continue
            found, components = ndimage.label(image == label, structure)
            numbered += np.where(found > 0, found + count, 0).astype(np.int32)
            count += components
    return torch.from_numpy(ids).to(target.device)


def cut_touching(instances: Tensor) -> Tensor:
    """Sets to 0 every pixel of (B, H, W) that has another object among its eight neighbours.

    Touching objects come apart by two pixels. The paper cuts them "by morphological operations" that it does not name.
    """
    ids = instances[:, None].to(torch.float64)  # holds every int32 exactly
    highest = F.max_pool2d(ids, 3, stride=1, padding=1)
    lowest = -F.max_pool2d((-ids).masked_fill(ids == 0, -torch.inf), 3, stride=1, padding=1)
    touches = (ids > 0) & ((highest != ids) | (lowest != ids))
    return instances.masked_fill(touches[:, 0], 0)


def class_balance(target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Returns w_c (B, H, W) float32: per image, pixels / (classes present * pixels of the pixel's class).

    Its mean over the pixels that are not ignored is 1; ignored pixels get 0. Classes lie in [0, 255).
    """
    labels = target.flatten(1).long()
    counts = torch.zeros(target.shape[0], _MOST_LABELS, device=target.device)
    counts.scatter_add_(1, labels, torch.ones_like(labels, dtype=counts.dtype))
    if 0 <= ignore_index < _MOST_LABELS:
        counts[:, ignore_index] = 0
    present = (counts > 0).sum(dim=1, keepdim=True)
    per_class = counts.sum(dim=1, keepdim=True) / (present * counts)
    per_class = per_class.masked_fill(counts == 0, 0.0)
    return per_class.gather(1, labels).view(target.shape)


def border_term(instances: Tensor, *, w0: float = 10.0, sigma: float = 5.0, inside: bool = False) -> Tensor:
    """Returns ``w0 exp(-(d1 + d2)**2 / (2 sigma**2))`` (B, H, W) float32 from object numbers (B, H, W), 0 for none.

    Distances are exact wherever the term exceeds 2**-24; what is smaller may come out as anything up to that.
    Two passes: the two nearest objects of each column by running maxima, then a search over columns that stops where
    farther ones cannot matter. The work grows with the pixels that are weighed and the distance of their objects.

    Args:
        instances: Whole numbers; equal numbers are one object, whether connected or not.
        w0: >= 0.
        sigma: In pixels, > 0.
        inside: Whether object pixels get the term too, with d1 = 0: the paper says nothing about them.

    Raises:
        InvalidValue: an argument is out of range, or the objects are no (B, H, W) of numbers in [0, 2**31).
    """
    if not w0 >= 0 or not sigma > 0:
        raise InvalidValue(f"w0 must be >= 0 and sigma > 0 pixels, got {w0} and {sigma}")
    if instances.ndim != 3 or 0 in instances.shape:
        raise InvalidValue(f"object numbers are (B, H, W) without empty sides, got {tuple(instances.shape)}")
    lowest, highest = (int(x) for x in instances.aminmax())
    if lowest < 0 or highest > _LARGEST_INT32:
        raise InvalidValue(f"object numbers lie in [0, {_LARGEST_INT32}], got {lowest} to {highest}; renumber them")
    term = torch.zeros(instances.shape, device=instances.device)
    if w0 <= _NEGLIGIBLE:
        return term
    most = sigma * math.sqrt(2 * math.log(w0 / _NEGLIGIBLE))  # of d1 + d2; beyond it the term is negligible
    reach = min(instances.shape[-1] - 1, math.ceil(most))
    size = _BLOCK[instances.is_cuda]
    strips = torch.split(instances, max(1, size // instances[..., 0].numel()), dim=2)
    column = _Nearest(*(torch.cat(part, dim=2) for part in zip(*map(_two_nearest_in_column, strips), strict=True)))
    places = torch.ones_like(instances, dtype=torch.bool) if inside else instances == 0
    # Columns beyond the image hold nothing: with them no shift has to look where the image ends.
    column = _Nearest(
        F.pad(column.first.square(), (reach, reach), value=_FAR**2).flatten(),
        F.pad(column.first_id, (reach, reach)).flatten(),
        F.pad(column.second.square(), (reach, reach), value=_FAR**2).flatten(),
        F.pad(column.second_id, (reach, reach)).flatten(),
    )
    where = F.pad(places, (reach, reach)).flatten().nonzero()[:, 0]  # (N,)
    blocks = [_two_nearest(column, block, reach, most) for block in torch.split(where, size)]
    first, second = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    total = first.to(torch.float32).sqrt() + second.to(torch.float32).sqrt()
    term[places] = w0 * torch.exp(-total.square() / (2 * sigma**2))
    return term


class _Nearest(NamedTuple):
    """Distances to the two nearest objects, and which they are; all int32 of one shape."""

    first: Tensor
    first_id: Tensor
    second: Tensor
    second_id: Tensor


def _two_nearest_in_column(instances: Tensor) -> _Nearest:
    """Vertical distances to the two nearest objects in each pixel's own column."""
    ids = instances.to(torch.int32)
    above = _two_nearest_above(ids)
    below = _Nearest(*(part.flip(1) for part in _two_nearest_above(ids.flip(1))))
    nearest = _with(above, below.first, below.first_id)
    return _with(nearest, below.second, below.second_id)


def _two_nearest_above(ids: Tensor) -> _Nearest:
    """Distances to the two nearest objects at or above each pixel of (B, H, W)."""
    rows = torch.arange(ids.shape[1], device=ids.device)[None, :, None].expand(ids.shape)
    is_object = ids > 0
    last = rows.where(is_object, -1).cummax(dim=1).values  # row of the nearest object pixel at or above
    last_id = _picked(ids, last)
    before = F.pad(last[:, :-1], (0, 0, 1, 0), value=-1)  # the same, strictly above
    starts = is_object & (ids != F.pad(last_id[:, :-1], (0, 0, 1, 0)))  # another object than the one before
    run = rows.where(starts, -1).cummax(dim=1).values  # where the stretch of the nearest object begins
    second = before.gather(1, run.clamp(min=0)).where(run >= 0, -1)
    return _Nearest(_distance(rows, last), last_id, _distance(rows, second), _picked(ids, second))


def _picked(ids: Tensor, rows: Tensor) -> Tensor:
    return ids.gather(1, rows.clamp(min=0)).where(rows >= 0, 0)


def _distance(rows: Tensor, found: Tensor) -> Tensor:
    return (rows - found).where(found >= 0, _FAR).clamp(max=_FAR).to(torch.int32)


def _with(nearest: _Nearest, distance: Tensor, object_id: Tensor) -> _Nearest:
    """Takes one more object at a distance into the two nearest."""
    first, first_id, second, second_id = nearest
    same = object_id == first_id
    closer = (distance < first) & ~same
    middle = (distance < second) & ~same & ~closer
    return _Nearest(
        torch.minimum(first, distance).where(same | closer, first),
        object_id.where(closer, first_id),
        first.where(closer, distance.where(middle, second)),
        first_id.where(closer, object_id.where(middle, second_id)),
    )


def _two_nearest(column: _Nearest, where: Tensor, reach: int, most: float) -> tuple[Tensor, Tensor]:
    """Squared distances (N,) to the two nearest objects of flat positions, over columns up to ``reach`` away.

    A position is done when no farther column can matter: both distances are known, or their sum exceeds ``most``.
    """
    first, first_id, second, _ = (part.index_select(0, where) for part in column)
    out_first, out_second = first.clone(), second.clone()
    active = torch.arange(len(where), device=where.device)
    for shift in range(1, reach + 1):
        for place in (where - shift, where + shift):
            for distances, ids in ((column.first, column.first_id), (column.second, column.second_id)):
                found = distances.index_select(0, place) + shift * shift
                found_id = ids.index_select(0, place)
                # The second nearest needs no name: whoever is not the nearest competes for its place.
                other = torch.minimum(second, torch.maximum(first, found))
                second = second.where(found_id == first_id, other)
                first_id = found_id.where(found < first, first_id)
                first = torch.minimum(first, found)
        if shift % _SHIFTS_PER_ROUND == 0 or shift == reach:
            out_first[active], out_second[active] = first, second
            unseen = (shift + 1) ** 2  # what other columns can still offer, at the best
            least = first.clamp(max=unseen).sqrt() + second.clamp(max=unseen).sqrt()
            undecided = (second > shift * shift) & (least <= most)
            active, where = active[undecided], where[undecided]
            first, first_id, second = first[undecided], first_id[undecided], second[undecided]
            if not len(active):
                break
    return out_first, out_second
