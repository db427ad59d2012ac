"""Where a stage's weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perpixel.errors import CheckpointError
from perpixel.labels import LabelSpace
from perpixel.models import Network
from perpixel.weights import Artifact, import_checkpoint, load_artifact, transfer

__all__ = ["load_start"]


def load_start(start: str, network: Network, labels: LabelSpace, previous: Path | None) -> Iterator[tuple[str, str]]:
    """Fills a new network as ``start`` says and yields what was done, in words.

    Args:
        start: ``scratch``, ``previous``, an artifact folder, or the file of a published checkpoint.
        network: Filled in place.
        labels: Its classes; those of the same name keep their weights.
        previous: The artifact of the stage before.

    Raises:
        CheckpointError: there are no such weights, or too few of them fit.
    """
    notes = getattr(network.backbone, "notes", ())
    yield from (("backbone", note) for note in notes)
    if start == "scratch":
        weights = network.backbone.config.weights  # type: ignore[union-attr]
        yield "scratch", "random weights" if weights == "none" else f"backbone from {weights}, the rest random"
        return
    path = previous if start == "previous" else Path(start)
    if path is None:
        raise CheckpointError("start 'previous' needs a stage before it; give 'scratch', an artifact or a file")
    yield str(path), transfer(network, labels, _artifact(path)).summary()


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
