"""Writes ``.caffemodel`` files byte by byte, in all the ways that Caffe has written them: the reader's counterpart."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

V1_NUMBERS = {"Convolution": 4, "InnerProduct": 14, "Deconvolution": 39}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def chunk(tag: int, content: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(content)) + content


def blob(array: Any, *, old_shape: bool = False, packed: bool = True, pieces: int = 1) -> bytes:
    """A BlobProto with its values, and some of diff, which a reader has to step over."""
    array = np.asarray(array)
    double = array.dtype == np.float64
    tag, kind = (8, "<f8") if double else (5, "<f4")
    if old_shape:
        sides = (1,) * (4 - array.ndim) + array.shape
        out = b"".join(number(i, side) for i, side in enumerate(sides, start=1))
    else:
        out = chunk(7, chunk(1, b"".join(varint(side) for side in array.shape)))
    values = array.reshape(-1).astype(kind)
    if packed:
        out += b"".join(chunk(tag, part.tobytes()) for part in np.array_split(values, pieces))
    else:
        wire = 1 if double else 5
        out += b"".join(varint(tag << 3 | wire) + value.tobytes() for value in values)
    return out + chunk(6, struct.pack("<f", 0.5))


def layer(name: str, kind: str, blobs: Iterable[bytes]) -> bytes:
    """A layer as it is written since 2014, with a bottom, a top and a learning rate beside."""
    out = chunk(1, name.encode()) + chunk(2, kind.encode()) + chunk(3, b"data") + chunk(4, name.encode())
    out += chunk(6, varint(3 << 3 | 5) + struct.pack("<f", 2.0)) + b"".join(chunk(7, b) for b in blobs)
    return chunk(100, out)


def old_layer(name: str, kind: str, blobs: Iterable[bytes]) -> bytes:
    """A layer as it was written until 2014."""
    out = chunk(2, b"data") + chunk(3, name.encode()) + chunk(4, name.encode()) + number(5, V1_NUMBERS.get(kind, 18))
    return chunk(2, out + b"".join(chunk(6, b) for b in blobs))


def write(path: Path, *layers: bytes) -> Path:
    path.write_bytes(chunk(1, b"net") + b"".join(layers))
    return path


def write_state(path: Path, state: Mapping[str, Any]) -> Path:
    """A file of convolutions from ``layer.weight`` and ``layer.bias``."""
    names = dict.fromkeys(key.rpartition(".")[0] for key in state)
    layers = []
    for name in names:
        values = [np.asarray(state[f"{name}.{leaf}"]) for leaf in ("weight", "bias") if f"{name}.{leaf}" in state]
        layers.append(layer(name, "Convolution", [blob(value) for value in values]))
    return write(path, *layers)
