"""Where a stage's weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.labels import LabelSpace
from perpixel.models import Network
from perpixel.weights import Artifact, import_checkpoint, load_artifact, prune_into, transfer

__all__ = ["load_start", "resume_start"]


def load_start(start: str, network: Network, labels: LabelSpace, previous: Path | None) -> Iterator[tuple[str, str]]:
    """Fills a new network as ``start`` says and yields what was done, in words.

    Args:
        start: ``scratch``, ``previous``, ``pruned`` (``previous``, narrowed to this network's width), an artifact
            folder, or the file of a published checkpoint.
        network: Filled in place.
        labels: Its classes; those of the same name keep their weights.
        previous: The artifact of the stage before.

    Raises:
        CheckpointError: there are no such weights, or too few of them fit.
        InvalidValue: ``start`` is ``pruned``, and this network is no narrower form of the previous one.
    """
    notes = getattr(network.backbone, "notes", ())
    yield from (("backbone", note) for note in notes)
    if start == "scratch":
        trunk: Any = network.backbone
        weights = "none" if trunk is None else trunk.config.weights
        yield "scratch", "random weights" if weights == "none" else f"backbone from {weights}, the rest random"
        return
    path = _source(start, previous)
    source = _artifact(path)
    if start == "pruned":
        yield f"{path}, pruned", prune_into(network, source.network).summary()
    else:
        yield str(path), transfer(network, labels, source).summary()
    if _take_preprocessing(network, source):
        yield "preprocessing", f"that of {path}, which its weights were trained with"


def resume_start(start: str, network: Network, previous: Path | None) -> None:
    """Gives a network whose weights come from a checkpoint what else its start decided: the preprocessing.

    Raises:
        CheckpointError: there are no such weights any more.
    """
    if start != "scratch":
        _take_preprocessing(network, _artifact(_source(start, previous)))


def _source(start: str, previous: Path | None) -> Path:
    path = previous if start in ("previous", "pruned") else Path(start)
    if path is None:
        raise CheckpointError(f"start {start!r} needs a stage before it; give 'scratch', an artifact or a file")
    return path


def _take_preprocessing(network: Network, source: Artifact) -> bool:
    """Images become what the copied weights were trained on; other channels keep the network's own preprocessing."""
    given = source.preprocessing
    if given == network.preprocessing or given.num_channels != network.preprocessing.num_channels:
        return False
    network.preprocessing = given
    return True


def _artifact(path: Path) -> Artifact:
    if path.is_dir():
        return load_artifact(path / "best" if (path / "best" / "model.yaml").exists() else path)
    imported = import_checkpoint(path)
    return Artifact(
        network=imported.network,
        labels=imported.labels,
        provenance={"file": str(path)},
        preprocessing=imported.network.preprocessing,
    )
