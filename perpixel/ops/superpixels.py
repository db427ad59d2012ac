"""Superpixels: small regions of one colour by SLIC, and sums over regions.

Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012. Differs from it
in that centres start as the means of their grid cells (not at the place of least gradient nearby), that a pixel chooses
among the nine centres of its own and the touching cells (not among those whose window of two steps holds it), and that
what is cut off from a region goes to a neighbour that reaches it first. Nothing loops over pixels.
Shapes: B batch, C channels, H W image, S regions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["neighbourhood_boxes", "region_means", "rgb_to_lab", "slic", "superpixel_grid"]

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)  # D65


def rgb_to_lab(images: Tensor) -> Tensor:
    """Converts sRGB (B, 3, H, W) in [0, 1] to CIE L*a*b* under D65, (B, 3, H, W): L* in [0, 100]."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    matrix = images.new_tensor(_TO_XYZ) / images.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    low = 7.787037 * xyz + 4 / 29
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), low)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def superpixel_grid(height: int, width: int, num_segments: int) -> tuple[int, int]:
    """Returns rows and columns of the grid of centres, about ``num_segments`` squares over the image."""
    step = math.sqrt(height * width / num_segments)
    return min(height, max(1, round(height / step))), min(width, max(1, round(width / step)))


def slic(
    images: Tensor,
    *,
    num_segments: int = 500,
    compactness: float = 10.0,
    iterations: int = 10,
    connected: bool = True,
) -> Tensor:
    """Groups pixels by colour and place: k-means with d² = |colour difference|² + (m / step)² |distance in pixels|².

    Args:
        images: (B, C, H, W) in a space where distance is likeness, such as `rgb_to_lab`.
        num_segments: Regions wanted; there are rows x columns of `superpixel_grid`, some of which may be empty.
        compactness: m > 0: how much place counts beside colour.
        iterations: Of k-means, >= 1.
        connected: Make every region one piece.

    Returns:
        (B, H, W) int64, the region of each pixel in [0, rows · columns).

    Raises:
        InvalidValue: a number is out of range.
    """
    if num_segments < 1 or iterations < 1 or not compactness > 0:
        raise InvalidValue(
            f"slic wants num_segments and iterations >= 1 and compactness > 0, got {num_segments}, {iterations} and "
            f"{compactness}"
        )
    batch, _, height, width = images.shape
    rows, columns = superpixel_grid(height, width, num_segments)
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    cell_y = (y * rows // height)[:, None].expand(height, width)
    cell_x = (x * columns // width).expand(height, width)
    scale = compactness / math.sqrt(height * width / (rows * columns))
    places = torch.stack(torch.meshgrid(y.to(images.dtype), x.to(images.dtype), indexing="ij")) * scale
    features = torch.cat([images, places.expand(batch, -1, -1, -1)], dim=1)
    labels = (cell_y * columns + cell_x).expand(batch, -1, -1)
    centres = region_means(features, labels, rows * columns)
    for _ in range(iterations):
        labels = _nearest_centres(features, centres, cell_y, cell_x, (rows, columns))
        centres = region_means(features, labels, rows * columns, otherwise=centres)
    return _connected(labels, features, centres) if connected else labels


def region_means(x: Tensor, regions: Tensor, num_regions: int, *, otherwise: Tensor | None = None) -> Tensor:
    """Averages (B, C, H, W) over the regions (B, H, W) of each image: (B, C, S); ``otherwise``, or 0, where empty."""
    index = regions.flatten(1)[:, None]  # (B, 1, HW)
    sums = x.new_zeros((*x.shape[:2], num_regions)).scatter_add(2, index.expand(-1, x.shape[1], -1), x.flatten(2))
    counts = x.new_zeros((x.shape[0], 1, num_regions)).scatter_add(2, index, x.new_ones(index.shape))
    means = sums / counts.clamp(min=1)
    return means if otherwise is None else torch.where(counts > 0, means, otherwise)


def neighbourhood_boxes(regions: Tensor, num_regions: int, *, hops: int) -> Tensor:
    """Returns the bounding box of each region and its neighbours up to ``hops`` borders away.

    Args:
        regions: (B, H, W) in [0, S).
        num_regions: S.
        hops: 0 is the region alone.

    Returns:
        (B, S, 4) int64: first row, first column, one past the last row and column. An empty region has the whole image.
    """
    batch, height, width = regions.shape
    pairs = torch.cat(
        [
            (regions[:, :, 1:] * num_regions + regions[:, :, :-1]).flatten(1),
            (regions[:, 1:] * num_regions + regions[:, :-1]).flatten(1),
        ],
        dim=1,
    )
    touching = torch.zeros(batch, num_regions**2, device=regions.device).scatter_(1, pairs, 1.0)
    touching = touching.view(batch, num_regions, num_regions)
    touching = touching + touching.mT + torch.eye(num_regions, device=regions.device)
    near = torch.eye(num_regions, device=regions.device).expand(batch, -1, -1)
    for _ in range(hops):
        near = ((near @ touching) > 0).float()
    index = regions.flatten(1)
    y = torch.arange(height, device=regions.device)[:, None].expand(height, width).flatten().expand(batch, -1)
    x = torch.arange(width, device=regions.device).expand(height, width).flatten().expand(batch, -1)
    edges = []
    for place, last, side in ((y, False, height), (x, False, width), (y, True, height), (x, True, width)):
        start = regions.new_full((batch, num_regions), -1 if last else side)
        own = start.scatter_reduce(1, index, place, "amax" if last else "amin")
        spread = torch.where(near > 0, own[:, None, :], start[:, :1, None])
        edges.append(spread.amax(dim=2) + 1 if last else spread.amin(dim=2))
    boxes = torch.stack(edges, dim=2)
    whole = boxes.new_tensor([0, 0, height, width])
    return torch.where((boxes[..., 2:] > 0).all(dim=2, keepdim=True), boxes, whole)


def _nearest_centres(
    features: Tensor, centres: Tensor, cell_y: Tensor, cell_x: Tensor, grid: tuple[int, int]
) -> Tensor:
    best: Tensor | None = None
    labels = torch.zeros_like(cell_y)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            candidate = (cell_y + dy).clamp(0, grid[0] - 1) * grid[1] + (cell_x + dx).clamp(0, grid[1] - 1)
            distance = (features - centres[:, :, candidate]).square().sum(dim=1)  # (B, H, W)
            if best is None:
                best, labels = distance, candidate.expand_as(distance)
                continue
            labels = torch.where(distance < best, candidate, labels)
            best = torch.minimum(distance, best)
    return labels


def _connected(labels: Tensor, features: Tensor, centres: Tensor) -> Tensor:
    """Keeps of every region the piece that holds its most central pixel; the rest goes to the pieces around it."""
    index = labels.flatten(1)
    own = centres.gather(2, index[:, None].expand(-1, features.shape[1], -1)).view_as(features)
    distance = (features - own).square().sum(dim=1).flatten(1)
    shape = (labels.shape[0], centres.shape[2])
    least = distance.new_full(shape, math.inf).scatter_reduce(1, index, distance, "amin")
    place = torch.arange(index.shape[1], device=labels.device).expand_as(index)
    nearest = torch.where(distance == least.gather(1, index), place, index.shape[1])
    first = index.new_full(shape, index.shape[1]).scatter_reduce(1, index, nearest, "amin")
    kept = (place == first.gather(1, index)).view_as(labels)
    right, down = labels[:, :, 1:] == labels[:, :, :-1], labels[:, 1:] == labels[:, :-1]
    while True:  # grow the seeds within their regions
        grown = kept.clone()
        grown[:, :, 1:] |= kept[:, :, :-1] & right
        grown[:, :, :-1] |= kept[:, :, 1:] & right
        grown[:, 1:] |= kept[:, :-1] & down
        grown[:, :-1] |= kept[:, 1:] & down
        if torch.equal(grown, kept):
            break
        kept = grown
    result = labels.masked_fill(~kept, -1)
    while bool((result < 0).any()):  # let the pieces grow into what was cut off
        before = result.clone()
        for to, source in (
            (result[:, :, 1:], before[:, :, :-1]),
            (result[:, :, :-1], before[:, :, 1:]),
            (result[:, 1:], before[:, :-1]),
            (result[:, :-1], before[:, 1:]),
        ):
            to.copy_(torch.where(to < 0, source, to))
    return result
