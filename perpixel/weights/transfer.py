"""Fine-tuning: filling a network from an artifact that has other classes or other image channels.

Tensors of the same name and shape are copied. The scores of a class are carried over by the class's *name*, so that
reordered, dropped or added classes keep what was learned; what depends on the classes in another way (DFN's heads are
nine channels wide per class) starts anew where their number differs. The report names every tensor.

Shapes: K classes, C image channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.labels import LabelSpace
from perpixel.models import Network, network_description, network_from_description
from perpixel.weights.artifact import Artifact
from perpixel.weights.importers.importer import listed

__all__ = ["TransferReport", "transfer"]

_LEAST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What became of every tensor of the network that was filled."""

    matched: tuple[str, ...]
    """Copied as they are."""
    by_class: tuple[tuple[str, tuple[str, ...]], ...]
    """(tensor, names of the classes whose rows were copied); its other rows are new."""
    adapted: tuple[tuple[str, str], ...]
    """(tensor, how): the first convolution, for another number of image channels."""
    reinitialised: tuple[tuple[str, str], ...]
    """(tensor, reason): left as the network was created."""
    left_over: tuple[str, ...]
    """Tensors of the source that have no place."""
    share: float
    """Parameters that were copied or adapted, as a fraction of those of the network that can train."""

    def summary(self) -> str:
        """Returns a few lines of text for the user."""
        lines = [f"{len(self.matched)} tensors copied, {self.share:.1%} of the parameters"]
        if self.by_class:
            names = self.by_class[0][1]
            lines.append(
                f"{len(self.by_class)} classifier tensors matched by class name for {len(names)} classes "
                f"({listed(names, 5)}): {listed((key for key, _ in self.by_class), 4)}"
            )
        lines += [f"{key} adapted: {how}" for key, how in self.adapted]
        for reason in dict.fromkeys(reason for _, reason in self.reinitialised):
            keys = [key for key, why in self.reinitialised if why == reason]
            lines.append(f"{len(keys)} tensors start anew, {reason}: {listed(keys, 4)}")
        if self.left_over:
            lines.append(f"{len(self.left_over)} tensors of the source left over: {listed(self.left_over, 4)}")
        return "\n".join(lines)


def transfer(network: Network, labels: LabelSpace, source: Artifact) -> TransferReport:
    """Fills ``network``, which predicts ``labels``, from ``source``; what cannot be carried over keeps its values.

    Args:
        network: The network to fill, in place; same architecture as the source's but for classes and channels.
        labels: Its classes; a class of the same name in the source's labels is the same class.
        source: Where the weights come from.

    Raises:
        InvalidValue: ``labels`` has another number of classes than the network.
        CheckpointError: less than half of the parameters can be carried over; the network is unchanged.
    """
    if labels.num_classes != network.num_classes:
        raise InvalidValue(
            f"label space {labels.name!r} has {labels.num_classes} classes, the network {network.num_classes}"
        )
    plan = _TransferPlan(network, labels, source)
    for key in network.state_dict():
        plan.place(key)
    report = plan.report()
    if report.share < _LEAST_SHARE:
        raise CheckpointError(
            f"only {report.share:.1%} of the parameters come from the source ({source.network.__class__.__name__}, "
            f"{source.labels.num_classes} classes), at least {_LEAST_SHARE:.0%} must. New: "
            f"{listed((f'{key} ({why})' for key, why in report.reinitialised), 5)}. Start from an artifact of the same "
            "model and backbone, or from scratch."
        )
    with torch.no_grad():
        target = network.state_dict()
        for key, value in plan.filled.items():
            target[key].copy_(value)
    return report


class _TransferPlan:
    """Collects the new values; nothing is written into the network before all is known."""

    def __init__(self, network: Network, labels: LabelSpace, source: Artifact) -> None:
        self.target = network.state_dict()
        self.source = source.network.state_dict()
        # What needs no gradient is a constant that the network sets itself, such as fixed upsampling.
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.channels = (source.preprocessing.num_channels, network.preprocessing.num_channels)
        names = {name: row for row, name in enumerate(source.labels.names)}
        self.rows = [(row, names[name]) for row, name in enumerate(labels.names) if name in names]
        self.names = tuple(labels.names[row] for row, _ in self.rows)
        self.same_classes = labels.names == source.labels.names
        self.class_rows, self.class_shapes = _class_tensors(network)
        self.filled: dict[str, Tensor] = {}
        self.matched: list[str] = []
        self.by_class: list[tuple[str, tuple[str, ...]]] = []
        self.adapted: list[tuple[str, str]] = []
        self.reinitialised: list[tuple[str, str]] = []
        self.copied = 0

    def place(self, key: str) -> None:
        """Decides about one tensor of the network."""
        new = self.target[key]
        if key not in self.source:
            self.reinitialised.append((key, "not in the source"))
            return
        old = self.source[key]
        if key in self.class_rows and not self.same_classes:
            self._match_rows(key, old, new)
        elif old.shape == new.shape:
            self._fill(key, old, new.numel())
            self.matched.append(key)
        elif self._is_first_convolution(old, new):
            have, want = self.channels
            # The mean over channels, scaled so that a grey image gives the same sums as before.
            self._fill(key, old.mean(dim=1, keepdim=True).expand_as(new) * (have / want), new.numel())
            self.adapted.append((key, f"mean over {have} image channels, repeated {want} times and scaled"))
        elif key in self.class_shapes:
            self.reinitialised.append((key, "its width follows the number of classes"))
        else:
            self.reinitialised.append((key, f"{tuple(old.shape)} in the source, {tuple(new.shape)} here"))

    def report(self) -> TransferReport:
        """Returns what was decided, once every tensor has its place."""
        total = sum(parameter.numel() for parameter in self.parameters.values())
        return TransferReport(
            matched=tuple(self.matched),
            by_class=tuple(self.by_class),
            adapted=tuple(self.adapted),
            reinitialised=tuple(self.reinitialised),
            left_over=tuple(key for key in self.source if key not in self.target),
            share=self.copied / max(1, total),
        )

    def _match_rows(self, key: str, old: Tensor, new: Tensor) -> None:
        inputs_kept = old.shape[1:] == new.shape[1:] and self._weight_kept(key)
        if not inputs_kept:
            self.reinitialised.append((key, "what the classifier reads starts anew"))
        elif not self.rows:
            self.reinitialised.append((key, "no class of the source has a name of the new ones"))
        else:
            value = new.clone()
            for row, old_row in self.rows:
                value[row] = old[old_row].to(value)
            self._fill(key, value, len(self.rows) * (new.numel() // new.shape[0]))
            self.by_class.append((key, self.names))

    def _weight_kept(self, key: str) -> bool:
        """A bias goes with its weight: kept without it, it would shift scores that mean something else."""
        weight = key.removesuffix("bias") + "weight" if key.endswith("bias") else key
        same = weight in self.source and weight in self.target
        return not same or self.source[weight].shape[1:] == self.target[weight].shape[1:]

    def _fill(self, key: str, value: Tensor, copied: int) -> None:
        self.filled[key] = value
        if key in self.parameters:
            self.copied += copied

    def _is_first_convolution(self, old: Tensor, new: Tensor) -> bool:
        return (
            old.ndim == new.ndim == 4
            and old.shape[0] == new.shape[0]
            and old.shape[2:] == new.shape[2:]
            and (old.shape[1], new.shape[1]) == self.channels
        )


def _class_tensors(network: Network) -> tuple[set[str], set[str]]:
    """Returns the keys of the classifiers (one row per class), and of all tensors whose shape follows K.

    A tensor's shape follows K when the same network with one more class has it in another shape. Classifiers are the
    modules of that name: a hidden layer may be K wide too without its rows being classes.
    """
    description = network_description(network)
    more = {**description, "num_classes": network.num_classes + 1}
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in network_from_description(more).state_dict().items()}
    follows = {key for key, value in network.state_dict().items() if shapes[key] != value.shape}
    return {key for key in follows if key.split(".")[-2] == "classifier"}, follows
