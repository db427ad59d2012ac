"""A labelled data set as numbered samples: decoded, checked, in train ids, never augmented.

Shapes: C image channels, H W image height and width.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.image_files import (
    MAX_PIXELS,
    ImageHead,
    image_head,
    mask_is_turned,
    read_color_mask,
    read_image,
    read_mask,
    to_channels,
)
from perpixel.data.source import Item
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["MaskEncoding", "Sample", "SegmentationDataset", "Target"]

MaskEncoding = Literal["ids", "colors"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its target, as the files hold them."""

    image: Tensor
    """(C, H, W) uint8 in [0, 255], or int32 in [0, 65535] for 16-bit files."""
    target: Tensor | None
    """(H, W) uint8 train ids in [0, K), 255 where ignored; None for an image without mask."""
    name: str
    size: tuple[int, int]
    """Height and width of the image in the file, EXIF orientation applied."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The mask of one item without its image, and what EXIF orientation did to the pair."""

    pixels: NDArray[np.uint8] | None
    """(H, W) train ids, 255 where ignored; None for an image without mask."""
    size: tuple[int, int]
    """Height and width of the image, upright."""
    image_turned: bool
    """The image carries an EXIF orientation other than upright."""
    mask_turned: bool
    """The mask carries none and was turned with its image."""


class SegmentationDataset:
    """Reads images and masks on demand and checks that they fit each other and the label space.

    Args:
        items: Files, in the order of the indices.
        labels: Says what the ids (or colours) of the masks mean.
        in_channels: Channels of every image; grey becomes RGB by repetition, RGB becomes grey by luminance.
        mask_encoding: ``"ids"`` reads pixel values as stored ids, ``"colors"`` reads RGB colours as classes.
        cache_mb: Decoded samples are kept up to this many MiB per process; 0 keeps none. What is full is not replaced:
            in a shuffled epoch every sample is read once, so replacing would only cost.
        max_pixels: Files whose header says more are refused before decoding.

    Raises:
        InvalidValue: channels, encoding or cache size are out of range.
        DataError: there are no items, or two share a name.
    """

    def __init__(
        self,
        items: Iterable[Item],
        labels: LabelSpace,
        *,
        in_channels: int = 3,
        mask_encoding: MaskEncoding = "ids",
        cache_mb: float = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if in_channels < 1:
            raise InvalidValue(f"in_channels must be at least 1, got {in_channels}")
        if mask_encoding not in get_args(MaskEncoding):
            raise InvalidValue(f"mask_encoding is one of {get_args(MaskEncoding)}, got {mask_encoding!r}")
        if cache_mb < 0:
            raise InvalidValue(f"cache_mb must not be negative, got {cache_mb}; 0 keeps nothing")
        self.items = tuple(items)
        if not self.items:
            raise DataError("the data set has no images; check the folder, the list and the split that was asked for")
        names = [item.name for item in self.items]
        if len(set(names)) < len(names):
            repeated = sorted(name for name, count in Counter(names).items() if count > 1)
            raise DataError(f"image names must differ within a split, repeated: {', '.join(repeated[:10])}")
        self.labels = labels
        self.in_channels = in_channels
        self.mask_encoding: MaskEncoding = mask_encoding
        self.cache_mb = cache_mb
        self.max_pixels = max_pixels
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Returns the sample with this index; its tensors may be shared with later calls and must not be written to.

        Raises:
            IndexError: there is no such index.
            DataError: a file cannot be read, image and mask differ in size, or the mask holds an unknown id.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a data set of {len(self)} images")
        index %= len(self)
        if index in self._cache:
            return self._cache[index]
        sample = self._read(self.items[index])
        self._keep(index, sample)
        return sample

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the cache and its lock, so that a worker process starts with its own."""
        state = self.__dict__.copy()
        del state["_lock"]
        return state | {"_cache": {}, "_cached_bytes": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def read_target(self, index: int) -> Target:
        """Reads only the mask of one item, and of the image only its header.

        Raises:
            DataError: as `__getitem__`, but pixels of the image are not looked at.
        """
        item = self.items[index]
        head = image_head(item.image, max_pixels=self.max_pixels)
        return self._read_target(item, head)

    def _read(self, item: Item) -> Sample:
        head = image_head(item.image, max_pixels=self.max_pixels)
        image = to_channels(
            read_image(item.image, max_pixels=self.max_pixels), self.in_channels, source=str(item.image)
        )
        pixels = self._read_target(item, head).pixels
        target = None if pixels is None else torch.from_numpy(pixels)
        return Sample(image=image, target=target, name=item.name, size=head.size)

    def _read_target(self, item: Item, head: ImageHead) -> Target:
        turned = head.orientation > 1
        if item.mask is None:
            return Target(pixels=None, size=head.size, image_turned=turned, mask_turned=False)
        source = str(item.mask)
        if self.mask_encoding == "colors":
            stored = read_color_mask(item.mask, like=head, max_pixels=self.max_pixels)
        else:
            stored = read_mask(item.mask, like=head, max_pixels=self.max_pixels)
        if stored.shape[:2] != head.size:
            height, width = stored.shape[:2]
            raise DataError(
                f"{item.mask}: the mask is {height} x {width} (height x width) and its image {item.image} is "
                f"{head.size[0]} x {head.size[1]}; both must have one size. Export the mask at the image's size; "
                "labels must be resized by nearest neighbour, never smoothly."
            )
        encode = self.labels.encode_colors if self.mask_encoding == "colors" else self.labels.encode
        mask_turned = turned and mask_is_turned(image_head(item.mask, max_pixels=self.max_pixels), head)
        return Target(
            pixels=encode(stored, source=source), size=head.size, image_turned=turned, mask_turned=mask_turned
        )

    def _keep(self, index: int, sample: Sample) -> None:
        tensors = [sample.image] if sample.target is None else [sample.image, sample.target]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        with self._lock:
            if index not in self._cache and self._cached_bytes + size <= self.cache_mb * 2**20:
                self._cache[index] = sample
                self._cached_bytes += size
