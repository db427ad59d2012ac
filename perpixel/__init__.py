"""perpixel: semantic segmentation with the published networks, exactly as published.

The names below load what they need on first use, so that ``import perpixel`` stays instant and torch-free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perpixel.build import evaluate, load, predict, train
    from perpixel.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        InvalidValue,
        MissingExtra,
        PerpixelError,
        PerpixelWarning,
        RunError,
    )
    from perpixel.labels import LabelSpace
    from perpixel.models import create_model, list_models
    from perpixel.types import Preprocessing, SegOutput, Term
    from perpixel.weights import import_checkpoint, import_weights

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InvalidValue",
    "LabelSpace",
    "MissingExtra",
    "PerpixelError",
    "PerpixelWarning",
    "Preprocessing",
    "RunError",
    "SegOutput",
    "Term",
    "create_model",
    "evaluate",
    "import_checkpoint",
    "import_weights",
    "list_models",
    "load",
    "predict",
    "train",
]

_HOME = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "InvalidValue": "errors",
    "LabelSpace": "labels",
    "MissingExtra": "errors",
    "PerpixelError": "errors",
    "PerpixelWarning": "errors",
    "Preprocessing": "types",
    "RunError": "errors",
    "SegOutput": "types",
    "Term": "types",
    "create_model": "models",
    "evaluate": "build",
    "import_checkpoint": "weights",
    "import_weights": "weights",
    "list_models": "models",
    "load": "build",
    "predict": "build",
    "train": "build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perpixel' has no attribute {name!r}")
    value = getattr(import_module(f"perpixel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
