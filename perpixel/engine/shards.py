"""Tensors of several processes in one folder, through torch.distributed.checkpoint; any number of processes reads them.

Each process writes its slices, and its share of what all of them hold. The package is imported when it is needed.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_shards", "write_shards"]

_METADATA = "torch.distributed.checkpoint.metadata"
_HARMLESS = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *((f"pathlib{room}", name) for room in ("", "._local") for name in ("Path", "PosixPath", "WindowsPath")),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    *(("torch", str(value).removeprefix("torch.")) for value in vars(torch).values() if isinstance(value, torch.dtype)),
}
"""What the list of tensors is made of; it is a pickle, and nothing else is taken from it."""


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes this process's part; all processes call it together.

    Raises:
        OSError: the disk refuses, here or for another process.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with _quiet():
            save(dict(tensors), storage_writer=FileSystemWriter(folder, single_file_per_rank=True))
    except CheckpointException as error:
        rank, (first, _trace) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank}: {first}") from error


def read_shards(folder: Path, live: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """Reads what this process needs, whatever number of processes wrote it.

    Args:
        folder: Written by `write_shards`.
        live: The tensor that the named one will be copied to; a sliced one takes its slice, others are read whole.

    Raises:
        OSError: a file cannot be read.
        pickle.UnpicklingError: the list of tensors holds something else.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta
    from torch.distributed.checkpoint.state_dict_loader import load

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - the signature of the base
            with (folder / ".metadata").open("rb") as file:
                metadata = _Unpickler(file).load()
            metadata.storage_meta = StorageMeta(load_id=self.load_id)
            return metadata

    reader = Reader(folder)
    tensors: dict[str, Tensor] = {}
    for name, entry in reader.read_metadata().state_dict_metadata.items():
        template = live(name)
        if template is not None and hasattr(template, "device_mesh") and template.shape == entry.size:
            tensors[name] = torch.empty_like(template.detach(), dtype=entry.properties.dtype)
        else:
            tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    try:
        with _quiet():
            load(tensors, storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        _rank, (first, _trace) = next(iter(error.failures.items()))
        raise OSError(str(first)) from error
    return tensors


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which no list of tensors needs")
        return super().find_class(module, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what torch says about its own use: that one process reads alone is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
