"""Weights: the model artifact, importers of published checkpoints, fine-tuning, and proof against reference vectors."""

from perpixel.backbones.weight_files import open_checkpoint, read_checkpoint, unwrap
from perpixel.weights.artifact import Artifact, load_artifact, read_description, save_artifact
from perpixel.weights.importers import (
    IMPORTERS,
    Imported,
    Importer,
    LoadReport,
    import_checkpoint,
    import_weights,
)
from perpixel.weights.pruning import PruneReport, check_narrower, prune, prune_into
from perpixel.weights.transfer import TransferReport, transfer
from perpixel.weights.verify import Row, Verification, find_vectors, verify

__all__ = [
    "IMPORTERS",
    "Artifact",
    "Imported",
    "Importer",
    "LoadReport",
    "PruneReport",
    "Row",
    "TransferReport",
    "Verification",
    "check_narrower",
    "find_vectors",
    "import_checkpoint",
    "import_weights",
    "load_artifact",
    "open_checkpoint",
    "prune",
    "prune_into",
    "read_checkpoint",
    "read_description",
    "save_artifact",
    "transfer",
    "unwrap",
    "verify",
]
