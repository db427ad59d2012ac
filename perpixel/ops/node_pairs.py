"""Pairs of cells of a feature map: the edges of Adelaide's contextual CRF, and their targets.

Source: Lin et al., CVPR 2016, arXiv:1504.01013, sections 3 and 5: each cell is a node, joined to all nodes in a box of
0.4 a x 0.4 a cells, a being the shorter side of the map; around it ("surrounding"), or above it ("above_below"), which
joins each node with those below it too. How the second box is shifted is assumed. Shapes: B batch, K classes, h w map,
N = h w nodes, E edges that start at each node.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.host_values import from_host

__all__ = ["IGNORED_PAIR", "Relation", "node_neighbours", "node_offsets", "pair_targets"]

Relation = Literal["surrounding", "above_below"]
"""``surrounding``: p with all q around it. ``above_below``: p with all q above it, so that order tells them apart."""

IGNORED_PAIR = -1
"""Target of an edge that leaves the map or ends at an ignored label; a class id would collide with a pair's."""


def node_offsets(
    size: tuple[int, int], *, relation: Relation, fraction: float = 0.4, grid: int = 0
) -> tuple[tuple[int, int], ...]:
    """Returns the steps (dy, dx) from a node to those that it is joined with, row by row.

    The box reaches ``half = max(1, floor(fraction · a / 2))`` cells to each side; the one above holds the rows from
    2 half + 1 to 1 above the node. Steps that leave every map of this size are left out.

    Args:
        size: (h, w) of the map.
        relation: Which box.
        fraction: Of the shorter side, in (0, 1].
        grid: Rows and columns of the box that are used, evenly spread; 0 takes all. 5 makes the 24 neighbours to which
            the authors' later paper (arXiv:1603.03183) cuts the surroundings.

    Raises:
        InvalidValue: the relation is unknown or a number out of range.
    """
    if relation not in get_args(Relation):
        raise InvalidValue(f"relation is one of {', '.join(get_args(Relation))}, got {relation!r}")
    if not 0 < fraction <= 1 or grid < 0:
        raise InvalidValue(f"fraction must lie in (0, 1] and grid be >= 0, got {fraction} and {grid}")
    half = max(1, int(fraction * min(size) / 2))
    lowest = half if relation == "surrounding" else -1
    rows = _spread(lowest - 2 * half, lowest, grid)
    columns = _spread(-half, half, grid)
    return tuple(
        (dy, dx) for dy in rows for dx in columns if (dy, dx) != (0, 0) and abs(dy) < size[0] and abs(dx) < size[1]
    )


def node_neighbours(
    size: tuple[int, int], offsets: tuple[tuple[int, int], ...], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Returns for each step and node the index of the node it leads to, (E, N) int64, and whether there is one, (E, N).

    Nodes count row by row; where a step leaves the map the index is that of some node, to be masked.
    """
    rows = torch.arange(size[0], device=device)[:, None]
    columns = torch.arange(size[1], device=device)
    steps = from_host(offsets, device=device).view(-1, 2, 1, 1)  # without steps (0, 2, 1, 1)
    y, x = rows + steps[:, 0], columns + steps[:, 1]  # (E, h, 1), (E, 1, w)
    valid = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    index = y.clamp(0, size[0] - 1) * size[1] + x.clamp(0, size[1] - 1)
    return index.flatten(1), valid.flatten(1)


def pair_targets(
    target: Tensor, num_classes: int, offsets: tuple[tuple[int, int], ...], *, ignore_index: int = 255
) -> Tensor:
    """Returns the joint label K · y_p + y_q of every edge of a label map (B, h, w): (B, E, N) int64.

    Edges that leave the map or touch ``ignore_index`` have `IGNORED_PAIR`.
    """
    size = (int(target.shape[1]), int(target.shape[2]))
    index, valid = node_neighbours(size, offsets, target.device)
    labels = target.long().flatten(1)  # (B, N)
    first, second = labels[:, None, :], labels[:, index]  # (B, 1, N), (B, E, N)
    counts = valid & (first != ignore_index) & (second != ignore_index)
    return torch.where(counts, num_classes * first + second, IGNORED_PAIR)


def _spread(first: int, last: int, grid: int) -> list[int]:
    """Whole numbers from first to last: all, or ``grid`` of them evenly spread, each once."""
    if grid == 0 or grid > last - first:
        return list(range(first, last + 1))
    if grid == 1:
        return [round((first + last) / 2)]
    return sorted({round(first + i * (last - first) / (grid - 1)) for i in range(grid)})
