"""Reading of ``.caffemodel`` files: the weights of a Caffe network, straight from protobuf's wire format.

A file is one ``NetParameter`` message. Only what holds weights is read; field numbers are those of caffe.proto:

============= ==================================================================================
NetParameter  2 layers (V1LayerParameter, files until 2014), 100 layer (LayerParameter, since then)
V1Layer…      1 layer (of 2013, refused), 4 name, 5 type (a number), 6 blobs
Layer…        1 name, 2 type (text), 7 blobs
BlobProto     1 num, 2 channels, 3 height, 4 width, 5 data (float), 7 shape, 8 double_data
BlobShape     1 dim
============= ==================================================================================

Blobs become tensors as Caffe means them: a convolution (out, in / groups, kh, kw), a deconvolution (in, out / groups,
kh, kw), which are PyTorch's own layouts, groups included; an inner product (out, in), whose inputs count channels
first, then rows, then columns, so that fc6 of VGG16 is a 7x7 convolution once its inputs are unfolded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.errors import CheckpointError

__all__ = ["read_caffemodel"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 64
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
_BLOB_NAMES = {
    "BN": ("scale", "shift", "running_mean", "running_var"),
    "BatchNorm": ("running_mean", "running_var"),
}
"""By type of layer; all others have weight and bias."""
_VECTORS = ("BN", "BatchNorm", "Scale", "Bias", "PReLU", "Normalize")
"""Layers whose blobs have one value per channel, however they are shaped."""
_SUM_OF_WEIGHTS = 2
"""Blob of a BatchNorm that its mean and variance are to be divided by."""


@dataclass
class _Layer:
    name: str = ""
    kind: str = ""
    blobs: list[NDArray[Any]] = field(default_factory=list)


def read_caffemodel(path: str | Path) -> dict[str, Tensor]:
    """Returns the weights of a ``.caffemodel`` file as ``layer.weight`` and ``layer.bias``, in the file's order.

    caffe-segnet's BN gives ``scale`` and ``shift`` (and ``running_mean``, ``running_var`` where a fork stores four
    blobs); Caffe's BatchNorm gives ``running_mean`` and ``running_var``, divided by the sum of weights that it stores;
    the Scale behind it gives ``weight`` and ``bias``. Further blobs are called ``blob2``, ``blob3``…

    Values are float32, or float64 where the file holds doubles.

    Raises:
        CheckpointError: the file cannot be read, ends early, is no such file, or holds no weights.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        layers = list(_layers(_Message(memoryview(content), 0)))
    except _OldFormat as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, _Damaged) as error:
        raise CheckpointError(f"{path}: not a caffemodel, or a damaged one ({error}); fetch it again") from error
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        for name, value in _named(layer):
            key = f"{layer.name}.{name}"
            if key in tensors:
                raise CheckpointError(f"{path}: two layers are called {layer.name!r}; give a file that Caffe wrote")
            tensors[key] = torch.from_numpy(
                value.astype(value.dtype.newbyteorder("="))
            )  # copies, and so frees the file
    if not tensors:
        raise CheckpointError(f"{path}: holds no layer with weights; give the .caffemodel, not the solver's state")
    return tensors


class _Damaged(ValueError):
    """The bytes are no message of this kind."""


class _OldFormat(ValueError):
    """The file is whole, but written in a way that is not read."""


class _Message:
    """Walks the fields of one message: (field number, wire type, value), with the file's offset for errors."""

    def __init__(self, view: memoryview, offset: int) -> None:
        self.view = view
        self.offset = offset

    def __iter__(self) -> Iterator[tuple[int, int, int | _Message]]:
        position = 0
        while position < len(self.view):
            tag, position = self._varint(position)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise _Damaged(f"no field at byte {self.offset + position - 1}")
            if wire == _VARINT:
                value, position = self._varint(position)
                yield number, wire, value
                continue
            if wire == _BYTES:
                size, position = self._varint(position)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise _Damaged(f"unknown wire type {wire} at byte {self.offset + position - 1}")
            if size > len(self.view) - position:
                missing = size - (len(self.view) - position)
                raise _Damaged(f"{missing} bytes are missing from byte {self.offset + position} on")
            yield number, wire, _Message(self.view[position : position + size], self.offset + position)
            position += size

    def text(self) -> str:
        try:
            return bytes(self.view).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Damaged(f"no text at byte {self.offset}") from error

    def whole_numbers(self) -> list[int]:
        """The values of a packed field of integers."""
        values, position = [], 0
        while position < len(self.view):
            value, position = self._varint(position)
            values.append(value)
        return values

    def _varint(self, position: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, _VARINT_BITS, 7):
            if position >= len(self.view):
                raise _Damaged(f"it ends inside a number at byte {self.offset + position}")
            byte = self.view[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _Damaged(f"a number without end at byte {self.offset + position}")


def _layers(net: _Message) -> Iterator[_Layer]:
    for number, _, value in net:
        if number not in (2, 100) or not isinstance(value, _Message):
            continue
        layer = _Layer()
        name_field, type_field, blobs_field = (4, 5, 6) if number == 2 else (1, 2, 7)
        for inner, _, part in value:
            if number == 2 and inner == 1:
                raise _OldFormat("written by Caffe of 2013; bring it up to date with Caffe's upgrade_net_proto_binary")
            if inner == name_field and isinstance(part, _Message):
                layer.name = part.text()
            elif inner == type_field:
                layer.kind = part.text() if isinstance(part, _Message) else _V1_TYPES.get(part, "")
            elif inner == blobs_field and isinstance(part, _Message):
                layer.blobs.append(_blob(part))
        yield layer


def _blob(message: _Message) -> NDArray[Any]:
    old: dict[int, int] = {}
    shape: list[int] | None = None
    pieces: dict[int, list[NDArray[Any]]] = {5: [], 8: []}
    for number, wire, value in message:
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number == 7 and isinstance(value, _Message):
            shape = list(_dimensions(value))
        elif number in pieces and isinstance(value, _Message):
            pieces[number].append(_values(value, wire, "<f4" if number == 5 else "<f8"))
    if shape is None:
        shape = [old.get(i, 0) for i in (1, 2, 3, 4)] if old else None
    stored = pieces[8] or pieces[5]
    values = stored[0] if len(stored) == 1 else np.concatenate([np.zeros(0, dtype=np.float32), *stored])
    shape = [len(values)] if shape is None else shape
    expected = 1
    for side in shape:
        expected *= side
    if expected != len(values):
        raise _Damaged(f"a blob of shape {tuple(shape)} at byte {message.offset} holds {len(values)} values")
    return values.reshape(shape)


def _dimensions(message: _Message) -> Iterator[int]:
    for number, _, value in message:
        if number == 1:
            yield from value.whole_numbers() if isinstance(value, _Message) else (value,)


def _values(message: _Message, wire: int, dtype: str) -> NDArray[Any]:
    """Floating values, packed or one by one."""
    size = np.dtype(dtype).itemsize
    whole = len(message.view) % size == 0 if wire == _BYTES else len(message.view) == size
    if not whole:
        raise _Damaged(f"{len(message.view)} bytes at byte {message.offset} are no values of {size} bytes")
    return np.frombuffer(message.view, dtype=dtype)


def _named(layer: _Layer) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names a layer's blobs and takes off the leading ones of Caffe's old four-dimensional shapes."""
    names = _BLOB_NAMES.get(layer.kind, ("weight", "bias"))
    for index, blob in enumerate(layer.blobs):
        if layer.kind == "BatchNorm" and index == _SUM_OF_WEIGHTS:
            continue
        name = names[index] if index < len(names) else f"blob{index}"
        if layer.kind in _VECTORS or (index > 0 and blob.size == max(blob.shape, default=1)):
            blob = blob.reshape(-1)
        elif layer.kind == "InnerProduct" and blob.shape[:-2] == (1, 1):
            blob = blob.reshape(blob.shape[-2:])
        if layer.kind == "BatchNorm" and len(layer.blobs) > _SUM_OF_WEIGHTS:
            total = float(layer.blobs[_SUM_OF_WEIGHTS].sum())
            blob = blob * np.asarray(0.0 if total == 0 else 1 / total, dtype=blob.dtype)
        yield name, blob
