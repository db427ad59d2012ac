"""What a training sample goes through, in order, and where its random numbers come from.

1. Window (scale, crop, flip), moved while one class covers too much of it (`cropping`); warped, where the affine map,
   elastic or rotation says so (`affine`, `data.elastic`). For a mosaic, four times, each for its part of the window.
2. Mixing (`mixing`): cutmix, classmix, copy-paste; the other samples come through step 1 as well.
3. Pixels alone: blur, gamma, hue, greyscale, noise (`blur`, `photometric`).
4. Cutout (`erasing`), then a transform of the user's own (`plugged`). Brightness, contrast, saturation and the
   normalisation follow per batch on the device (`ops.normalize`).

Each transform has a generator of its own, made of (seed, epoch, index, number of the transform, number of the sample
within the mixture): turning one on changes nothing that the others draw, nor the window that is drawn without any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.augment.affine import draw_affine, warp
from perpixel.data.augment.blur import blurred
from perpixel.data.augment.cropping import draw_around, limited
from perpixel.data.augment.erasing import cover, draw_holes
from perpixel.data.augment.mixing import chosen_classes, draw_cells, draw_rectangle, half_of_classes, pasted
from perpixel.data.augment.photometric import with_gamma, with_hue, with_noise, without_colour
from perpixel.data.augment.plugged import call_plugged
from perpixel.data.augment.settings import Augment
from perpixel.data.elastic import deform, draw_displacement, with_mirrored_border
from perpixel.data.transforms import IGNORE_INDEX, Augmentation, apply, draw, draw_jitter, sample_rng
from perpixel.errors import DataError
from perpixel.ops.normalize import FULL_SCALE

if TYPE_CHECKING:
    from perpixel.data.dataset import Sample

__all__ = ["Augmented", "SamplePipeline", "SampleSource"]

_NUMBERS = {
    "window": 0,
    "class_share": 1,
    "affine": 2,
    "mosaic": 3,
    "cutmix": 4,
    "classmix": 5,
    "copy_paste": 6,
    "blur": 7,
    "gamma": 8,
    "hue": 9,
    "grayscale": 10,
    "noise": 11,
    "cutout": 12,
    "plugged": 13,
}
"""Of the generators; runs are reproducible while a name keeps its number."""
_NOTHING = Augment()


class SampleSource(Protocol):
    """What batches are cut from: `SegmentationDataset`, or anything indexed that gives samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Augmented(NamedTuple):
    """A sample as it goes into a batch."""

    image: Tensor
    """(C, *crop_size) uint8, or int32 for 16-bit images, with (H, W, C) memory."""
    target: Tensor
    """(*crop_size) uint8 train ids, 255 where ignored."""
    jitter: tuple[float, float, float]
    """Factors of brightness, contrast and saturation."""
    name: str


class _Key(NamedTuple):
    """Which sample of the run, and which part of a mixture (0 is the sample itself)."""

    seed: int
    epoch: int
    sample: int
    part: int = 0

    def rng(self, name: str) -> np.random.Generator:
        """The generator of one transform."""
        if name == "window" and self.part == 0:
            return sample_rng(self.seed, self.epoch, self.sample)
        spawned = (self.epoch, self.sample, _NUMBERS[name], self.part)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=spawned)))

    def happens(self, name: str, probability: float) -> np.random.Generator | None:
        """The transform's generator, its first number drawn, or None where the transform does not happen."""
        if probability <= 0:
            return None
        rng = self.rng(name)
        return rng if rng.random() < probability else None


@dataclass(frozen=True)
class SamplePipeline:
    """Gives the samples of a data set as they go into batches; see the module for the order.

    Raises:
        DataError: ``copy_paste`` is on and no image has one of its classes.
    """

    dataset: SampleSource
    augmentation: Augmentation
    seed: int
    pad_value: tuple[float, ...]
    class_presence: NDArray[np.bool_] | None = None
    """(N, K): which sample holds which class, by which copy-paste chooses; None lets it take any sample."""

    def __post_init__(self) -> None:
        settings = self.augmentation.augment or _NOTHING
        if settings.copy_paste and self.class_presence is not None and not len(self._holders()):
            raise DataError(
                f"augment.copy_paste_classes {list(settings.copy_paste_classes)}: no training image has any of them"
            )

    def __call__(self, epoch: int, index: int) -> Augmented:
        """Returns one sample.

        Raises:
            DataError: a sample has no mask or cannot be read, samples that are mixed have different bit depths, or a
                transform of the user's own gives what it must not.
        """
        key = _Key(self.seed, epoch, index)
        settings = self.augmentation.augment or _NOTHING
        sample = _with_target(self.dataset[index])
        mosaic = key.happens("mosaic", settings.mosaic)
        cells = [] if mosaic is None else draw_cells(self.augmentation.crop_size, mosaic)
        augmentation = self.augmentation if not cells else self._smaller(cells[0])
        image, target, jitter = self._window(key, sample, augmentation)
        if settings is _NOTHING:
            return Augmented(image, target, jitter, sample.name)
        pixels, labels = image.permute(1, 2, 0).numpy(), target.numpy()
        if mosaic is not None:
            pixels, labels = self._mosaic(key, mosaic, cells, pixels, labels)
        if settings.mixes:
            pixels, labels = self._mixed(key, settings, pixels, labels)
        pixels = _colours(key, settings, pixels)
        pixels, labels = self._last(key, settings, pixels, labels)
        return Augmented(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels), jitter, sample.name)

    def _window(
        self, key: _Key, sample: _Labelled, augmentation: Augmentation, classes: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
        """Step 1; ``classes`` (256,) asks for a window around one of them."""
        settings = augmentation.augment or _NOTHING
        image, target, rng = sample.image, sample.target, key.rng("window")
        if augmentation.mirror:
            image, target = with_mirrored_border(image, target, augmentation.mirror)
        size = image.shape[1], image.shape[2]
        if classes is None:
            window = draw(augmentation, size, rng, target)
        else:
            window = draw_around(augmentation, size, rng, target, classes)
        jitter = draw_jitter(augmentation, rng)
        if settings.max_class_share < 1 and classes is None:
            tries = settings.max_class_tries
            window = limited(window, target, settings.max_class_share, tries, key.rng("class_share"))
        is_deformed = augmentation.elastic > 0 or augmentation.rotation > 0
        field = draw_displacement(augmentation, rng) if is_deformed else None
        affine_rng = key.happens("affine", settings.affine)
        if affine_rng is not None:
            affine = draw_affine(settings, window.crop, affine_rng)
            border = settings.border
            return *warp(window, affine, field, image, target, border=border, pad_value=self.pad_value), jitter
        if field is not None:
            return *deform(window, field, image, target), jitter
        return *apply(window, image, target, pad_value=self.pad_value), jitter

    def _mixed(
        self, key: _Key, settings: Augment, pixels: NDArray[Any], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Step 2; each part of a mixture has its number: 1 to 3 in a mosaic, then one per transform."""
        size = labels.shape[0], labels.shape[1]
        rng = key.happens("cutmix", settings.cutmix)
        if rng is not None:
            self._fill(key._replace(part=4), rng, draw_rectangle(size, settings.cutmix_alpha, rng), pixels, labels)
        rng = key.happens("classmix", settings.classmix)
        if rng is not None:
            other, other_labels = self._other(key._replace(part=5), rng, self.augmentation, like=pixels)
            pixels, labels = pasted(pixels, labels, other, other_labels, half_of_classes(other_labels, rng))
        rng = key.happens("copy_paste", settings.copy_paste)
        if rng is not None:
            table = chosen_classes(settings.copy_paste_classes)
            found = self._other(key._replace(part=6), rng, self.augmentation, like=pixels, classes=table)
            pixels, labels = pasted(pixels, labels, *found, table)
        return pixels, labels

    def _mosaic(
        self,
        key: _Key,
        rng: np.random.Generator,
        cells: list[tuple[slice, slice]],
        pixels: NDArray[Any],
        labels: NDArray[np.uint8],
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Puts the sample's window into the first cell and other samples into the rest."""
        whole = np.empty((*self.augmentation.crop_size, pixels.shape[2]), dtype=pixels.dtype)
        whole_labels = np.empty(self.augmentation.crop_size, dtype=np.uint8)
        whole[cells[0]], whole_labels[cells[0]] = pixels, labels
        for part, cell in enumerate(cells[1:], start=1):
            self._fill(key._replace(part=part), rng, cell, whole, whole_labels)
        return whole, whole_labels

    def _smaller(self, cell: tuple[slice, slice]) -> Augmentation:
        """What happens to a sample that is shown in a part of the window."""
        size = cell[0].stop - cell[0].start, cell[1].stop - cell[1].start
        return replace(self.augmentation, crop_size=size)

    def _fill(
        self,
        key: _Key,
        rng: np.random.Generator,
        cell: tuple[slice, slice],
        pixels: NDArray[Any],
        labels: NDArray[np.uint8],
    ) -> None:
        """Shows another sample in a part of the window, in place; only that part of it is computed."""
        if labels[cell].size:
            pixels[cell], labels[cell] = self._other(key, rng, self._smaller(cell), like=pixels)

    def _other(
        self,
        key: _Key,
        rng: np.random.Generator,
        augmentation: Augmentation,
        *,
        like: NDArray[Any],
        classes: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Draws another sample and returns its window, after step 1."""
        candidates = None if classes is None or self.class_presence is None else self._holders()
        if candidates is not None:
            index = int(candidates[int(rng.random() * len(candidates))])
        else:
            others = max(1, len(self.dataset) - 1)
            index = (key.sample + 1 + int(rng.random() * others)) % len(self.dataset)
        sample = _with_target(self.dataset[index])
        image, target, _ = self._window(key, sample, augmentation, classes)
        pixels = image.permute(1, 2, 0).numpy()
        if pixels.dtype != like.dtype:
            raise DataError(
                f"{sample.name} has {pixels.dtype} pixels and is mixed with a sample of {like.dtype}; "
                "convert the files: a data set is either all 8-bit or all 16-bit"
            )
        return pixels, target.numpy()

    def _holders(self) -> NDArray[np.intp]:
        """Samples that have a class of copy-paste."""
        assert self.class_presence is not None
        known = self.class_presence.shape[1]
        classes = [label for label in (self.augmentation.augment or _NOTHING).copy_paste_classes if label < known]
        return np.flatnonzero(self.class_presence[:, classes].any(axis=1))

    def _last(
        self, key: _Key, settings: Augment, pixels: NDArray[Any], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Step 4."""
        rng = key.happens("cutout", settings.cutout)
        if rng is not None:
            full = FULL_SCALE[torch.uint8 if pixels.dtype == np.uint8 else torch.int32]
            holes = draw_holes(settings.cutout_holes, settings.cutout_size, (labels.shape[0], labels.shape[1]), rng)
            levels = tuple(round(value * full) for value in self.pad_value)
            label = IGNORE_INDEX if settings.cutout_labels == "ignore" else None
            cover(pixels, labels, holes, levels=levels, label=label)
        rng = None if settings.plugged is None else key.happens("plugged", settings.plugged_probability)
        if rng is not None and settings.plugged is not None:
            seed = int(rng.integers(1 << 32))
            return call_plugged(settings.plugged, settings.plugged_style, pixels, labels, seed)
        return pixels, labels


class _Labelled(NamedTuple):
    image: Tensor
    target: Tensor
    name: str


def _with_target(sample: Sample) -> _Labelled:
    if sample.target is None:
        raise DataError(f"{sample.name} has no mask; training needs one for every image of the split")
    return _Labelled(sample.image, sample.target, sample.name)


def _colours(key: _Key, settings: Augment, pixels: NDArray[Any]) -> NDArray[Any]:
    """Step 3."""
    rng = key.happens("blur", settings.blur)
    if rng is not None:
        pixels = blurred(pixels, float(rng.uniform(*settings.blur_sigma)))
    rng = key.happens("gamma", settings.gamma)
    if rng is not None:
        low, high = np.log(settings.gamma_range).tolist()
        pixels = with_gamma(pixels, float(np.exp(rng.uniform(low, high))))
    has_colour = pixels.shape[2] == 3
    rng = key.happens("hue", settings.hue)
    if rng is not None and has_colour:
        pixels = with_hue(pixels, settings.hue_degrees * (2 * rng.random() - 1))
    if key.happens("grayscale", settings.grayscale) is not None and has_colour:
        pixels = without_colour(pixels)
    rng = key.happens("noise", settings.noise)
    if rng is not None:
        pixels = with_noise(pixels, float(rng.uniform(*settings.noise_std)), rng)
    return pixels
