"""The model artifact: a folder with ``model.safetensors`` and ``model.yaml`` from which a network can be rebuilt alone.

It is written whole or not at all: into a sibling folder first, flushed to disk, then renamed over the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import perpixel
from perpixel.engine.atomic import new_folder
from perpixel.errors import CheckpointError, InvalidValue, PerpixelError
from perpixel.labels import LabelSpace
from perpixel.models import Network, network_description, network_from_description
from perpixel.types import Preprocessing
from perpixel.weights.importers.importer import floating_dtype, listed

__all__ = ["FORMAT_VERSION", "Artifact", "load_artifact", "read_description", "save_artifact"]

FORMAT_VERSION = 1
_TENSORS = "model.safetensors"
_DESCRIPTION = "model.yaml"
_KEYS = ("network", "preprocessing", "labels", "provenance")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What an artifact folder holds."""

    network: Network
    """In evaluation mode, on the CPU, in the stored floating type."""
    labels: LabelSpace
    provenance: dict[str, Any]
    """Recipe, data fingerprint, steps, scores, versions, commit: what is known of the network's making."""
    preprocessing: Preprocessing


def save_artifact(
    folder: str | Path,
    network: Network,
    labels: LabelSpace,
    provenance: Mapping[str, Any],
    *,
    state_dict: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes the artifact and returns its folder; an old artifact there is replaced once the new one is complete.

    Args:
        folder: Where to; made with its parents. A folder that holds anything but an artifact is refused.
        network: The network, on any device.
        labels: Its classes.
        provenance: Plain values (numbers, strings, lists, dicts), kept as they are.
        state_dict: Tensors to store instead of the network's own, an averaged copy for example.

    Raises:
        InvalidValue: the labels have another number of classes than the network, or the provenance is not plain.
        CheckpointError: the folder holds something else or cannot be written, or ``state_dict`` does not fit.
    """
    folder = Path(folder)
    if problem := _labels_problem(labels, network):
        raise InvalidValue(f"{folder}: {problem}; store the labels that the network was trained with")
    tensors = dict(network.state_dict() if state_dict is None else state_dict)
    _check_fit(tensors, network.state_dict(), "state_dict")
    text = _description_text(network, labels, provenance)
    _refuse_other_content(folder)
    # Cloned, because tied tensors share memory and safetensors stores each name by itself.
    copies = {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    try:
        with new_folder(folder) as partial:
            save_file(copies, partial / _TENSORS, metadata={"format": "pt"})
            (partial / _DESCRIPTION).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the artifact could not be written ({error}); free space or choose another folder. "
            "What stood there is untouched."
        ) from error
    return folder


def load_artifact(folder: str | Path) -> Artifact:
    """Rebuilds the network of an artifact folder; nothing else is needed.

    Raises:
        CheckpointError: not an artifact, damaged, from a newer perpixel, or its tensors do not fit its description.
    """
    folder = _existing(Path(folder))
    description = read_description(folder)
    path = folder / _TENSORS
    try:
        tensors = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error}); copy or save it again") from error
    try:
        labels = LabelSpace.from_dict(description["labels"])
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        network = network_from_description(description["network"])
    except (PerpixelError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, PerpixelError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{folder / _DESCRIPTION}: does not describe a network ({reason})") from error
    if problem := _labels_problem(labels, network):
        raise CheckpointError(f"{folder / _DESCRIPTION}: {problem}; the file was changed by hand: save it again")
    _check_fit(tensors, network.state_dict(), str(path))
    network.preprocessing = preprocessing
    network.to(floating_dtype(tensors.values()))
    network.load_state_dict(tensors, strict=True)
    return Artifact(
        network=network.eval(), labels=labels, provenance=description["provenance"], preprocessing=preprocessing
    )


def _description_text(network: Network, labels: LabelSpace, provenance: Mapping[str, Any]) -> str:
    described = {
        "perpixel_artifact": FORMAT_VERSION,
        "perpixel": perpixel.__version__,
        "network": network_description(network),
        "preprocessing": network.preprocessing.to_dict(),
        "labels": labels.to_dict(),
    }
    for key, value in provenance.items():
        try:
            yaml.safe_dump(value)
        except yaml.YAMLError as error:
            raise InvalidValue(
                f"provenance {key!r} holds {error}; give plain numbers, strings, lists and dicts"
            ) from error
    return yaml.safe_dump({**described, "provenance": dict(provenance)}, sort_keys=False, allow_unicode=True)


def read_description(folder: str | Path) -> dict[str, Any]:
    """Returns what model.yaml says (keys ``network``, ``preprocessing``, ``labels``, ``provenance``), without weights.

    Raises:
        CheckpointError: not an artifact, damaged, or from a newer perpixel.
    """
    path = _existing(Path(folder)) / _DESCRIPTION
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(f"{path}: not a YAML file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("perpixel_artifact"), int):
        raise CheckpointError(f"{path}: no artifact of perpixel (the key 'perpixel_artifact' is missing)")
    version = content["perpixel_artifact"]
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: artifact format {version} was written by perpixel {content.get('perpixel')}; this is "
            f"{perpixel.__version__}, which reads up to format {FORMAT_VERSION}: update perpixel"
        )
    absent = [key for key in _KEYS if not isinstance(content.get(key), dict)]
    if absent:
        raise CheckpointError(f"{path}: incomplete artifact, it lacks {', '.join(absent)}")
    return content


def _labels_problem(labels: LabelSpace, network: Network) -> str:
    if labels.num_classes == network.num_classes:
        return ""
    return f"label space {labels.name!r} has {labels.num_classes} classes, the network {network.num_classes}"


def _check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    """Names every key that is missing, left over or of another shape."""
    missing = [key for key in wanted if key not in tensors]
    left_over = [key for key in tensors if key not in wanted]
    mismatched = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    parts = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (("missing", missing), ("left over", left_over), ("mismatched", mismatched))
        if names
    ]
    if parts:
        raise CheckpointError(f"{source}: tensors do not fit the network: {'; '.join(parts)}")


def _existing(folder: Path) -> Path:
    """Returns the folder if it holds both files."""
    if not folder.is_dir():
        reason = "is a file, not an artifact folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(
            f"{folder}: {reason}; give a folder with {_TENSORS} and {_DESCRIPTION}, such as best/ of a run. "
            "Published checkpoint files are read by `perpixel import`."
        )
    absent = [name for name in (_TENSORS, _DESCRIPTION) if not (folder / name).is_file()]
    if absent:
        hint = "; give its best/ folder" if _is_complete(folder / "best") else ""
        raise CheckpointError(f"{folder}: not an artifact, {' and '.join(absent)} missing{hint}")
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / _TENSORS).is_file() and (folder / _DESCRIPTION).is_file()


def _refuse_other_content(folder: Path) -> None:
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in (_TENSORS, _DESCRIPTION))
        if others:
            raise CheckpointError(f"{folder}: holds more than an artifact ({listed(others, 5)}); choose another folder")
    elif folder.exists():
        raise CheckpointError(f"{folder}: is a file; an artifact is a folder, choose another name")
