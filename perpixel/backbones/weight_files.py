"""Reading of checkpoint files into a flat state dict: containers opened, wrapper prefixes taken off.

Only tensors are read. A pickle may run code when it is opened, so files are read with ``weights_only=True`` and what
that refuses is an error with the way out.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perpixel.backbones.caffemodel import read_caffemodel
from perpixel.errors import CheckpointError

__all__ = ["Unwrapped", "open_checkpoint", "read_checkpoint", "unwrap"]

_CONTAINER_KEYS = ("model", "state_dict", "model_state", "model_state_dict", "net", "network", "weights", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_LOSS_PREFIXES = ("criterion.", "aux_criterion.", "loss.", "loss_fn.")
_MAX_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class Unwrapped:
    """A state dict, and what was taken off or left aside to get it."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint file by name, as `open_checkpoint` finds them."""
    return open_checkpoint(path).tensors


def open_checkpoint(path: str | Path) -> Unwrapped:
    """Reads a ``.safetensors``, ``.caffemodel`` or ``torch.save`` file (``.pth``, ``.pt``, ``.tar``, ``.pkl``); on CPU.

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors and plain values, or holds no tensor.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a folder, not a checkpoint file" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {kind}; give a .safetensors or .caffemodel file, or one that torch.save wrote")
    content = _READERS.get(path.suffix, _read_pickle)(path)
    try:
        return unwrap(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def unwrap(content: object) -> Unwrapped:
    """Finds the state dict inside what a checkpoint file held.

    Dives into the keys under which training code keeps its model (``model``, ``state_dict``, ``net``, …), takes the
    prefixes of DataParallel (``module.``), of ``torch.compile`` (``_orig_mod.``) and of wrappers that hold the network
    beside its loss (``model.``, ``net.``) off, and leaves aside the loss's tensors (``criterion.``, ``loss.``, …) and
    values that are no tensors; the notes name all of it. NumPy arrays become tensors.

    Raises:
        CheckpointError: there is no tensor in it, or two keys become the same one.
    """
    notes: list[str] = []
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, Mapping) or (key := _container_key(content)) is None:
            break
        beside = [str(k) for k in content if k != key]
        notes.append(f"taken from {key!r}" + (f"; left aside: {', '.join(beside)}" if beside else ""))
        content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds {type(content).__name__}, not a state dict; save model.state_dict() instead")
    tensors = {str(k): _as_tensor(v) for k, v in content.items() if isinstance(v, Tensor | np.ndarray)}
    others = [str(k) for k, v in content.items() if not isinstance(v, Tensor | np.ndarray)]
    if not tensors:
        listed = ", ".join(others[:10]) or "nothing"
        raise CheckpointError(f"no tensor found (it holds {listed}); save model.state_dict() and import that file")
    if others:
        notes.append(f"no tensors, left aside: {', '.join(others)}")
    tensors, prefixes = _without_prefixes(tensors)
    notes += [f"prefix {prefix!r} taken off" for prefix in prefixes]
    of_loss = [key for key in tensors if key.startswith(_LOSS_PREFIXES)]
    if of_loss and len(of_loss) < len(tensors):
        notes.append(f"of the training loss, not of the network, left aside: {', '.join(of_loss)}")
        tensors = {key: value for key, value in tensors.items() if key not in of_loss}
    return Unwrapped(tensors=tensors, notes=tuple(notes))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one ({error}); fetch it again") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickles of other protocols, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))  # PyTorch's advice beside it is to load unsafely
        held = f", it asks for {found[1]}" if found else ""
        raise CheckpointError(
            f"{path}: refused{held}. perpixel reads only tensors and plain values, because a pickle that holds "
            "other objects can run code when it is opened, and a file that is damaged or no checkpoint looks the same. "
            "If you trust the file, re-save its tensors once where it was made: "
            "checkpoint = torch.load(file, weights_only=False), then "
            "torch.save(model.state_dict(), 'tensors.pth') or torch.save(checkpoint['model'], 'tensors.pth')."
        ) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, ValueError, KeyError, AttributeError) as error:
        told = str(error).strip()
        first = type(error).__name__ if isinstance(error, KeyError) or not told else told.splitlines()[0]
        raise CheckpointError(
            f"{path}: not a file of torch.save, or a damaged one ({first}); fetch it again"
        ) from error


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": _read_safetensors, ".caffemodel": read_caffemodel}
"""By suffix; everything else is taken for a file of ``torch.save``."""


def _container_key(content: Mapping[Any, Any]) -> Any | None:
    """The key to dive into: a known name with a mapping under it, or the only mapping that holds tensors."""
    for key in _CONTAINER_KEYS:
        if isinstance(content.get(key), Mapping):
            return key
    if _holds_tensors(content):
        return None
    inner = [key for key, value in content.items() if isinstance(value, Mapping) and _holds_tensors(value)]
    return inner[0] if len(inner) == 1 else None


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor | np.ndarray) for value in content.values())


def _as_tensor(value: Any) -> Tensor:
    # ascontiguousarray would make a vector of a scalar, such as a norm's batch counter.
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))


def _without_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Takes a wrapper's prefix off as long as every key but a loss's has it, and ``_orig_mod.`` wherever it stands."""
    taken: list[str] = []
    names = {key: key for key in tensors}
    while prefix := _shared_prefix(names.values()):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
        taken.append(prefix)
    if any("_orig_mod." in name for name in names.values()):
        names = {key: name.replace("_orig_mod.", "") for key, name in names.items()}
        taken.append("_orig_mod.")
    if len(set(names.values())) < len(names):
        repeated = sorted({n for n in names.values() if list(names.values()).count(n) > 1})
        raise CheckpointError(f"keys repeat once their prefixes are taken off: {', '.join(repeated[:5])}")
    return {names[key]: tensor for key, tensor in tensors.items()}, taken


def _shared_prefix(names: Iterable[str]) -> str | None:
    of_network = [name for name in names if not name.startswith(_LOSS_PREFIXES)]
    return next((p for p in _PREFIXES if of_network and all(name.startswith(p) for name in of_network)), None)
