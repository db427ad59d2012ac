"""Reading of tensors from weight files, safely: safetensors, or pickles that hold nothing but tensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perpixel.errors import CheckpointError

__all__ = ["read_tensors", "unwrap_state_dict"]

_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "ema")
_PREFIXES = ("module.", "_orig_mod.")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict of a .safetensors file, or of a pickled checkpoint (.pth, .pt, .tar), on the CPU.

    Pickles are read with ``weights_only=True``; containers such as ``{"model": …}`` are opened and the prefixes of
    DataParallel and torch.compile removed.

    Raises:
        CheckpointError: the file is missing, unreadable, holds more than tensors, or no tensors at all.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give a .safetensors, .pth or .pt file.")
    try:
        if path.suffix == ".safetensors":
            return unwrap_state_dict(load_file(path), source=str(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors, and perpixel never runs code from a weight file. Where you trust it, "
            "re-save it once: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)."
        ) from error
    except (OSError, RuntimeError, EOFError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable weight file ({error}). Was the download complete?") from error
    return unwrap_state_dict(content, source=str(path))


def unwrap_state_dict(content: Any, *, source: str = "checkpoint") -> dict[str, Tensor]:
    """Finds the state dict inside a checkpoint's containers and strips wrappers' prefixes from its keys.

    Raises:
        CheckpointError: there is no mapping from names to tensors inside.
    """
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            keys = ", ".join(repr(key) for key in list(content)[:8])
            raise CheckpointError(f"{source}: no weights inside; its keys are {keys or 'none'}.")
        content = content[inner]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source}: expected a mapping from names to tensors, got {type(content).__name__}.")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in (*_PREFIXES, *_PREFIXES):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors
