"""Structured pruning: a network with fewer channels everywhere, made of the kernels with the largest L1 norms.

A kernel that goes takes its feature map with it, and every weight that reads the map; maps that are added go together
(`models.channel_groups`). What is left is an ordinary network of the smaller width: an artifact to score, and to start
a stage of training from. Li et al., ICLR 2017, arXiv:1608.08710: norms are those of the unpruned kernels, and in a
residual stage those of the shortcut decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.models import MODELS, Network, network_description, network_from_description
from perpixel.models.channel_groups import ChannelGroup, Narrowable
from perpixel.weights.importers.importer import listed

__all__ = ["PruneReport", "PrunedGroup", "check_narrower", "prune", "prune_into"]


@dataclass(frozen=True, kw_only=True)
class PrunedGroup:
    """What became of one group of channels."""

    layer: str
    """The convolution whose kernels decided; the first where several did."""
    channels: int
    kept: int
    norm_kept: float
    """Share of the L1 norm of the deciding kernels that the kept ones hold."""


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """What was removed."""

    groups: tuple[PrunedGroup, ...]
    parameters_before: int
    parameters_after: int

    def summary(self) -> str:
        """Returns a few lines of text for the user."""
        before, after = self.parameters_before, self.parameters_after
        kept, channels = sum(g.kept for g in self.groups), sum(g.channels for g in self.groups)
        least = sorted(self.groups, key=lambda g: g.norm_kept)[:3]
        shown = listed(f"{g.layer} {g.norm_kept:.1%}" for g in least)
        return (
            f"{before:,} parameters became {after:,} ({after / before:.1%})\n"
            f"{kept} of {channels} channels kept in {len(self.groups)} groups; least of the L1 norm kept: {shown}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "groups": [asdict(group) for group in self.groups]}


def prune(network: Network, keep: float = 0.5) -> tuple[Network, PruneReport]:
    """Returns a narrower network with the weightiest share of the kernels of every layer, and what was removed.

    Args:
        network: A network that states its channel groups, such as ICNet; it is left as it is.
        keep: Share of the channels that stays, in (0, 1).

    Returns:
        The new network, in the mode, floating type and with the preprocessing of the old one, on the CPU.

    Raises:
        InvalidValue: the network cannot be narrowed, or not by this share.
    """
    description = network_description(network)
    config = _narrowable(network).narrowed(keep)
    smaller = network_from_description({**description, "options": asdict(config)})
    smaller.to(dtype=next(network.parameters()).dtype)
    report = prune_into(smaller, network)
    return smaller.train(network.training), report


def prune_into(smaller: Network, network: Network) -> PruneReport:
    """Fills ``smaller`` with the weightiest kernels of ``network``, which differs from it in width alone.

    Raises:
        InvalidValue: the network cannot be narrowed, or ``smaller`` is not a narrower form of it.
    """
    groups = _narrowable(network).channel_groups()
    check_narrower(smaller, network)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    wanted = {key: value.shape for key, value in smaller.state_dict().items()}
    full = dict(state)
    pruned = []
    for group in groups:
        scores = _scores(full, group)
        kept = wanted[f"{group.scored_by[0]}.weight"][0]
        index = scores.topk(kept).indices.sort().values
        _select(state, group, index)
        pruned.append(
            PrunedGroup(
                layer=group.scored_by[0],
                channels=len(scores),
                kept=kept,
                norm_kept=float(scores[index].sum() / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny)),
            )
        )
    smaller.load_state_dict(state, strict=True)
    return PruneReport(
        groups=tuple(pruned),
        parameters_before=sum(p.numel() for p in network.parameters()),
        parameters_after=sum(p.numel() for p in smaller.parameters()),
    )


def _scores(state: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
    """The L1 norm of each channel's kernel, summed over the convolutions that decide; float64."""
    norms = [state[f"{name}.weight"].double().abs().flatten(start_dim=1).sum(dim=1) for name in group.scored_by]
    return torch.stack(norms).sum(dim=0)


def _select(state: dict[str, Tensor], group: ChannelGroup, index: Tensor) -> None:
    for name in group.made_by:
        for key in state:
            if key.startswith(f"{name}.") and state[key].ndim:  # a norm's batch counter has no dimension
                state[key] = state[key].index_select(0, index)
    for name in group.read_by:
        state[f"{name}.weight"] = state[f"{name}.weight"].index_select(1, index)


def _narrowable(network: Network) -> Narrowable:
    if isinstance(network, Narrowable):
        return network
    known = sorted(name for name, entry in MODELS.items() if issubclass(entry.network, Narrowable))
    raise InvalidValue(
        f"{type(network).__name__} cannot be pruned: it does not state which of its channels belong together; "
        f"{', '.join(known)} can"
    )


def check_narrower(smaller: Network, network: Network) -> None:
    """Makes sure that ``smaller`` is ``network`` with fewer channels; shapes alone are looked at.

    Raises:
        InvalidValue: it is not, or the network cannot be narrowed.
    """
    _narrowable(network).channel_groups()
    ours, theirs = network_description(smaller), network_description(network)
    same = ("name", "num_classes", "backbone")
    differing = [key for key in same if _plain(ours[key]) != _plain(theirs[key])]
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    small = {key: value.shape for key, value in smaller.state_dict().items()}
    if differing or set(shapes) != set(small):
        raise InvalidValue(
            f"a pruned network has the {', '.join(differing) or 'layers'} of the one that it is pruned from; these "
            "two differ in more than their width"
        )
    wider = [key for key, shape in small.items() if any(a > b for a, b in zip(shape, shapes[key], strict=True))]
    if wider or small == shapes:
        raise InvalidValue(
            f"pruning makes a network narrower, and this one is not: {listed(wider, 3) or 'all shapes are equal'}; "
            "give it a smaller width"
        )


def _plain(value: Any) -> Any:
    """Without where a trunk's weights came from, which is no part of its form."""
    return {k: v for k, v in value.items() if k != "weights"} if isinstance(value, dict) else value
