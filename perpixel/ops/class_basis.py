"""Filters from which LRR builds the outline of a class: principal components of its label patches.

Source: Ghiasi & Fowlkes, ECCV 2016, arXiv:1605.02264, section 3.1, and their code (golnazghiasi/LRR).
Shapes: K classes, N basis filters per class, P side of a patch in pixels, S side of a filter, n patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["class_basis", "cosine_basis", "patch_basis"]


def class_basis(
    label_maps: Iterable[Tensor],
    num_classes: int,
    *,
    num_basis: int = 10,
    size: int = 8,
    patch: int = 32,
    windows_per_map: int = 100,
    max_patches: int = 10_000,
    min_share: float = 0.02,
    seed: int = 0,
) -> Tensor:
    """Computes the basis filters of every class from label maps.

    Windows are drawn at random places; of a class count those in which it fills at least ``min_share``. The authors
    draw for each class apart and go round the maps until 10,000 patches are found; here every window serves all
    classes and every map is used once, until each class has ``max_patches``.

    Args:
        label_maps: Labels (H, W), any integer type; read one after the other, at most once.
        num_classes: K.
        num_basis: N.
        size: S.
        patch: P.
        windows_per_map: Windows drawn from one map.
        max_patches: Patches per class at most.
        min_share: Least share of the class in a patch, in (0, 1].
        seed: Of the places.

    Returns:
        (K, N, S, S) float32.

    Raises:
        InvalidValue: a number is out of range, or a class has no more than N patches.
    """
    if min(num_classes, num_basis, size, patch, windows_per_map, max_patches) < 1 or not 0 < min_share <= 1:
        raise InvalidValue(
            f"class_basis wants positive numbers and min_share in (0, 1], got {num_classes=}, {num_basis=}, {size=}, "
            f"{patch=}, {windows_per_map=}, {max_patches=}, {min_share=}"
        )
    generator = torch.Generator().manual_seed(seed)
    found: list[list[Tensor]] = [[] for _ in range(num_classes)]
    counts = [0] * num_classes
    too_small = 0
    for labels in label_maps:
        if min(labels.shape) < patch:
            too_small += 1
            continue
        windows = _windows(labels.cpu(), patch, windows_per_map, generator)
        for index in range(num_classes):
            own = windows == index
            kept = own[own.float().mean(dim=(1, 2)) >= min_share][: max_patches - counts[index]]
            found[index].append(kept)
            counts[index] += len(kept)
        if min(counts) >= max_patches:
            break
    poor = [f"class {index} ({count})" for index, count in enumerate(counts) if count <= num_basis]
    if poor:
        raise InvalidValue(
            f"{num_basis} basis filters need more than {num_basis} label patches of {patch} x {patch} pixels per "
            f"class; too few of {', '.join(poor)}; {too_small} maps were smaller than a patch. Give more label maps, "
            "or lower patch or min_share"
        )
    return torch.stack([patch_basis(torch.cat(patches), num_basis, size) for patches in found])


def patch_basis(patches: Tensor, num_basis: int, size: int) -> Tensor:
    """Returns the first principal components of binary patches (n, P, P), as filters (N, S, S) float32.

    With the patches less their mean as rows of D = U diag(s) Vᵀ the filters are diag(sqrt(s)) Vᵀ, brought from P x P to
    S x S by averaging (how the authors resize them is not verified). The sign of a component is arbitrary: here its
    largest entry is positive.
    """
    rows = patches.flatten(1).double()
    deviations = rows - rows.mean(dim=0)
    _, scale, directions = torch.linalg.svd(deviations, full_matrices=False)
    filters = scale[:num_basis, None].sqrt() * directions[:num_basis]
    largest = filters.gather(1, filters.abs().argmax(dim=1, keepdim=True))
    filters = torch.where(largest < 0, -filters, filters)
    maps = filters.view(1, num_basis, *patches.shape[1:])
    return F.adaptive_avg_pool2d(maps, size)[0].float()


def cosine_basis(num_basis: int, size: int) -> Tensor:
    """Returns the cosines of lowest frequency on an S x S grid, (N, S, S) float32, each of norm one.

    They stand in for `class_basis` where no label maps are at hand, and are ours, not the paper's. The order is by
    squared frequency, vertical ones first among equals.

    Raises:
        InvalidValue: there are fewer than N of them.
    """
    if not 1 <= num_basis <= size * size:
        raise InvalidValue(f"an {size} x {size} grid has 1 to {size * size} cosines, got num_basis={num_basis}")
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * centres)  # (frequency, place)
    waves = waves / waves.norm(dim=1, keepdim=True)
    pairs = sorted(
        ((u, v) for u in range(size) for v in range(size)), key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, -pair[0])
    )
    return torch.stack([waves[u][:, None] * waves[v] for u, v in pairs[:num_basis]]).float()


def _windows(labels: Tensor, patch: int, number: int, generator: torch.Generator) -> Tensor:
    """Cuts windows (n, P, P) out of (H, W) at random places."""
    every = labels.unfold(0, patch, 1).unfold(1, patch, 1)  # (H - P + 1, W - P + 1, P, P), a view
    rows = torch.randint(every.shape[0], (number,), generator=generator)
    columns = torch.randint(every.shape[1], (number,), generator=generator)
    return every[rows, columns]
