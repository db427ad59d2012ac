"""Test-time procedures as published code computes them, one class per code base, which holds all its quirks.

Which sizes, which padding, what is added, multiplied and divided is that of the code base. A network brings its own
scores to the size of its input as its `align_corners` says. Their published settings: `perpixel.inference.protocols`.
Shapes: C image channels, K classes, H W image, h w view, N windows, V orientations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.inference.multi_scale import SCALES
from perpixel.inference.opencv_resize import opencv_resize, opencv_scale
from perpixel.inference.padding import padded, pixel_value
from perpixel.inference.procedures import (
    BOTH,
    PLAIN,
    Orientations,
    Scorer,
    add_scores,
    check_pair,
    check_scales,
    stretched,
)
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.sliding import Grid, slide
from perpixel.ops.normalize import FULL_SCALE
from perpixel.ops.resize import resize

__all__ = ["DeepLab", "Encoding", "HRNet", "Semseg", "TorchSeg"]

_TWO_THIRDS = 2 / 3


@dataclass(frozen=True, kw_only=True)
class _Multi(ABC):
    """What the sliding protocols share: scales, mirrored views, and how many windows run at once."""

    scales: Sequence[float] = SCALES
    flip: bool = True
    batch_size: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", check_scales(self.scales))
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size of windows is at least 1, got {self.batch_size}")

    @property
    def orientations(self) -> Orientations:
        """The runs of every window."""
        return BOTH if self.flip else PLAIN

    @torch.inference_mode()
    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns the protocol's sums, whose logarithms stand for logits, at the images' size."""
        scores = torch.stack([self._image(scorer, image) for image in images])
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return ScoreMap(logits=scores, covered=size, size=size, align_corners=False, probabilities=True)

    @abstractmethod
    def _image(self, scorer: Scorer, image: Tensor) -> Tensor:
        """Scores of one raw image (C, H, W), (K, H, W)."""

    def _runs(self, scorer: Scorer, inputs: Tensor) -> Tensor:
        """Scores of windows (N, C, h, w) at their size in every orientation, (V, N, K, h, w)."""
        scores = scorer.input_scores(inputs, orientations=self.orientations).full()
        return scores.reshape(len(self.orientations), -1, *scores.shape[1:])

    def _slide(
        self,
        scorer: Scorer,
        x: Tensor,
        score: Callable[[Scorer, Tensor], Tensor],
        grid: Grid,
        *,
        divided: bool = True,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Windows over one view (1, C, h, w), (K, h, w)."""
        return slide(
            x,
            lambda inputs: score(scorer, inputs),
            grid,
            num_classes=scorer.num_classes,
            dtype=dtype or scorer.score_dtype,
            divided=divided,
            batch_size=self.batch_size,
        )[0]


@dataclass(frozen=True, kw_only=True)
class TorchSeg(_Multi):
    """TorchSeg's evaluator (furnace/engine/evaluator.py).

    - The uint8 image is scaled by OpenCV, by the factor itself; sides are rounded.
    - Long side within the crop: normalised, centred on zeros, one run. Else raw black padding up to the crop, which is
      not zero once normalised, and windows of the crop, the last one shifted to the border.
    - Mirrored views are added as log-softmaxes and then exponentiated: a product of probabilities, not a mean.
    - Windows are summed in float32 and *not* divided by how often a pixel was seen: overlaps count twice.
    - Scores are resized by OpenCV and added up over the scales.
    """

    scales: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 1.75)
    crop: int = 512
    stride_rate: float = _TWO_THIRDS

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_square(self.crop)
        _check_rate(self.stride_rate)

    def _image(self, scorer: Scorer, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        total = torch.zeros((scorer.num_classes, height, width), dtype=scorer.score_dtype, device=scorer.device)
        for scale in self.scales:
            _add_resized(total, self._view(scorer, opencv_scale(image, scale)[None]))
        return total

    def _view(self, scorer: Scorer, raw: Tensor) -> Tensor:
        height, width = raw.shape[-2:]
        x = _float64_normalized(raw, scorer)
        size = (max(height, self.crop), max(width, self.crop))
        offset = ((size[0] - height) // 2, (size[1] - width) // 2)
        one_run = max(height, width) <= self.crop
        black = pixel_value(scorer.preprocessing, 0.0)
        x = padded(x, size, (0.0,) * len(black) if one_run else black, offset=offset)
        if one_run:
            scores = self._probabilities(scorer, x.float())[0]
        else:
            crop = (self.crop, self.crop)
            stride = math.ceil(self.crop * self.stride_rate)
            grid = Grid.over(size, crop, (stride, stride), last="shifted")
            scores = self._slide(scorer, x.float(), self._probabilities, grid, divided=False, dtype=torch.float32)
        return scores[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]

    def _probabilities(self, scorer: Scorer, inputs: Tensor) -> Tensor:
        return self._runs(scorer, inputs).log_softmax(2).sum(0).exp_()


@dataclass(frozen=True, kw_only=True)
class Semseg(_Multi):
    """semseg's tool/test.py, of PSPNet and PSANet.

    - The image becomes float32 before OpenCV resizes it to a long side of ``round(scale * base_size)``.
    - Padding is the mean colour, around the image; windows of the crop, the last one shifted to the border.
    - Softmaxes of a window and its mirror image are averaged; the published script always mirrors, at one scale too.
    - Windows are divided by how often a pixel was seen, resized by OpenCV, and averaged over the scales.
    """

    base_size: int = 512
    crop: int | tuple[int, int] = 473
    stride_rate: float = _TWO_THIRDS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair("the base size", (self.base_size, self.base_size))
        check_pair("the crop", self.crop)
        _check_rate(self.stride_rate)

    def _image(self, scorer: Scorer, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        total = torch.zeros((scorer.num_classes, height, width), dtype=scorer.score_dtype, device=scorer.device)
        raw = _network_order(image[None], scorer).float()
        for scale in self.scales:
            long = round(scale * self.base_size)
            size = (long, round(long / height * width)) if height > width else (round(long / width * height), long)
            x = _of_pixels(opencv_resize(raw, _usable(size, scale)), scorer, FULL_SCALE[image.dtype])
            _add_resized(total, self._view(scorer, x))
        return total.div_(len(self.scales))

    def _view(self, scorer: Scorer, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        crop = check_pair("the crop", self.crop)
        size = (max(height, crop[0]), max(width, crop[1]))
        offset = ((size[0] - height) // 2, (size[1] - width) // 2)
        x = padded(x, size, (0.0,) * x.shape[1], offset=offset)
        stride = (math.ceil(crop[0] * self.stride_rate), math.ceil(crop[1] * self.stride_rate))
        grid = Grid.over(size, crop, stride, last="shifted")
        scores = self._slide(scorer, x, self._probabilities, grid)
        return scores[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]

    def _probabilities(self, scorer: Scorer, inputs: Tensor) -> Tensor:
        return self._runs(scorer, inputs).softmax(2).mean(0)


@dataclass(frozen=True, kw_only=True)
class Encoding(_Multi):
    """PyTorch-Encoding's MultiEvalModule (encoding/models/sseg/base.py), of EncNet and DANet.

    - The normalised image is resized with corners aligned, to a long side of ``ceil(base_size * scale)``.
    - Padding is black, below and to the right; the last window of a row is not shifted but padded.
    - Scores of a window and its mirror image are added, then exponentiated *without* softmax, so that views with large
      scores weigh more; divided by how often a pixel was seen, resized with corners aligned, summed over the scales.
    """

    base_size: int = 520
    crop: int = 480
    stride_rate: float = _TWO_THIRDS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair("the base size", (self.base_size, self.base_size))
        _check_square(self.crop)
        _check_rate(self.stride_rate)
        _check_floor(self.crop, self.stride_rate)

    def _image(self, scorer: Scorer, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        x = _unit_normalized(image[None], scorer)
        total = torch.zeros((1, scorer.num_classes, height, width), dtype=scorer.score_dtype, device=scorer.device)
        for scale in self.scales:
            size = _long_side(height, width, math.ceil(self.base_size * scale))
            scores = self._view(scorer, resize(x, _usable(size, scale), align_corners=True))[None]
            for k in range(total.shape[1]):
                total[:, k : k + 1] += resize(scores[:, k : k + 1], (height, width), align_corners=True)
        return total[0]

    def _view(self, scorer: Scorer, x: Tensor) -> Tensor:
        crop, stride = (self.crop, self.crop), int(self.crop * self.stride_rate)
        return _end_padded(self, scorer, x, crop, (stride, stride), self._exponentials)

    def _exponentials(self, scorer: Scorer, inputs: Tensor) -> Tensor:
        return self._runs(scorer, inputs).sum(0).exp_()


@dataclass(frozen=True, kw_only=True)
class HRNet(_Multi):
    """HRNet's and OCRNet's multi-scale test (lib/datasets/base_dataset.py and cityscapes.py).

    - The normalised image is resized by OpenCV to a long side of ``int(base_size * scale + 0.5)``.
    - Elsewhere than on Cityscapes: black padding below and to the right, windows of the crop with a stride of
      ``int(2/3 crop)``, the last one padded. On Cityscapes: scales up to ``whole_up_to`` run whole; above, windows as
      far apart as they are large, the last one shifted, and none larger than the image.
    - Scores of a window and its mirror image are averaged, then exponentiated *without* softmax; divided by how often a
      pixel was seen, resized with half-pixel centres, summed over the scales.
    """

    base_size: int = 520
    crop: int | tuple[int, int] = 520
    stride_rate: float = _TWO_THIRDS
    whole_up_to: float | None = None
    """Largest scale that is run whole; a number also chooses Cityscapes' windows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair("the base size", (self.base_size, self.base_size))
        crop = check_pair("the crop", self.crop)
        _check_rate(self.stride_rate)
        _check_floor(min(crop), self.stride_rate)

    def _image(self, scorer: Scorer, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        x = _unit_normalized(image[None], scorer)
        total = torch.zeros((1, scorer.num_classes, height, width), dtype=scorer.score_dtype, device=scorer.device)
        for scale in self.scales:
            size = _long_side(height, width, int(self.base_size * scale + 0.5))
            scores = self._view(scorer, opencv_resize(x, _usable(size, scale)), scale)[None]
            for k in range(total.shape[1]):
                total[:, k : k + 1] += resize(scores[:, k : k + 1], (height, width), align_corners=False)
        return total[0]

    def _view(self, scorer: Scorer, x: Tensor, scale: float) -> Tensor:
        crop = check_pair("the crop", self.crop)
        stride = (int(crop[0] * self.stride_rate), int(crop[1] * self.stride_rate))
        if self.whole_up_to is None:
            return _end_padded(self, scorer, x, crop, stride, self._exponentials)
        if scale <= self.whole_up_to:
            return self._exponentials(scorer, x)[0]
        height, width = x.shape[-2:]
        cut = (min(crop[0], height), min(crop[1], width))
        grid = Grid.over((height, width), cut, (min(stride[0], cut[0]), min(stride[1], cut[1])), last="shifted")
        return self._slide(scorer, x, self._exponentials, grid)

    def _exponentials(self, scorer: Scorer, inputs: Tensor) -> Tensor:
        return self._runs(scorer, inputs).mean(0).exp_()


@dataclass(frozen=True, kw_only=True)
class DeepLab:
    """DeepLab v3 and v3+ as TensorFlow's model library evaluates them (research/deeplab).

    - The image is padded below and to the right with mid-grey (127.5) to the crop, if it is smaller, and never cut.
    - A view's sides are ``int((side - 1) * scale + 1)``, resized with corners aligned.
    - Scores are resized to the padded image with corners aligned; softmaxes of all scales and mirror images are
      averaged. The mirrored view has its padding on the left.

    Not followed: scores of a view smaller than the image first go through the score grid of the image's own size.
    """

    scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    flip: bool = True
    crop: int | tuple[int, int] = 513

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", check_scales(self.scales))
        check_pair("the crop", self.crop)

    @torch.inference_mode()
    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns the mean softmax at the images' size."""
        height, width = images.shape[-2:]
        crop = check_pair("the crop", self.crop)
        whole = (max(height, crop[0]), max(width, crop[1]))
        x = padded(_unit_normalized(images, scorer), whole, pixel_value(scorer.preprocessing, 0.5))
        shape = (images.shape[0], scorer.num_classes, height, width)
        total = torch.zeros(shape, dtype=scorer.score_dtype, device=scorer.device)
        for scale in self.scales:
            size = _usable((int((whole[0] - 1) * scale + 1), int((whole[1] - 1) * scale + 1)), scale)
            view = resize(x, size, align_corners=True)
            for orientation in BOTH if self.flip else PLAIN:
                scores = replace(scorer.input_scores(view, orientations=(orientation,)), align_corners=True)
                add_scores(total, replace(stretched(scores, whole), size=(height, width)), "probabilities")
        total /= len(self.scales) * (1 + self.flip)
        return ScoreMap(
            logits=total, covered=(height, width), size=(height, width), align_corners=False, probabilities=True
        )


def _end_padded(
    protocol: _Multi,
    scorer: Scorer,
    x: Tensor,
    crop: tuple[int, int],
    stride: tuple[int, int],
    score: Callable[[Scorer, Tensor], Tensor],
) -> Tensor:
    """Windows over a view (1, C, h, w) that is black below and to the right, (K, h, w)."""
    height, width = x.shape[-2:]
    grid = Grid.over((max(height, crop[0]), max(width, crop[1])), crop, stride, last="padded")
    x = padded(x, grid.extent, pixel_value(scorer.preprocessing, 0.0))
    return protocol._slide(scorer, x, score, grid)[:, :height, :width]


def _add_resized(total: Tensor, scores: Tensor) -> None:
    """Adds scores (K, h, w) to a sum (K, H, W), resized by OpenCV class by class."""
    classes, size = total.shape[0], (int(total.shape[-2]), int(total.shape[-1]))
    for k in range(classes):
        total[k : k + 1] += opencv_resize(scores[k : k + 1], size, channels=classes)


def _long_side(height: int, width: int, long: int) -> tuple[int, int]:
    """Size of an image whose long side becomes ``long``; halves are rounded up."""
    return (long, int(width * long / height + 0.5)) if height > width else (int(height * long / width + 0.5), long)


def _network_order(images: Tensor, scorer: Scorer) -> Tensor:
    return images.flip(1) if scorer.preprocessing.channel_order == "bgr" else images


def _float64_normalized(raw: Tensor, scorer: Scorer) -> Tensor:
    """Normalises as NumPy does: pixels divided in float32, then mean and deviation in float64."""
    fractions = (_network_order(raw, scorer).float() / FULL_SCALE[raw.dtype]).double()
    return _less_mean(fractions * scorer.preprocessing.value_range, scorer)


def _unit_normalized(raw: Tensor, scorer: Scorer) -> Tensor:
    """Normalises on the device, in the type of the scores."""
    fractions = _network_order(raw, scorer).to(scorer.device, scorer.score_dtype) / FULL_SCALE[raw.dtype]
    return _less_mean(fractions * scorer.preprocessing.value_range, scorer)


def _of_pixels(x: Tensor, scorer: Scorer, full_scale: float) -> Tensor:
    """Normalises values of [0, full_scale] by mean and deviation of that range, in their own type."""
    return _less_mean(x.clone(), scorer, full_scale / scorer.preprocessing.value_range)


def _less_mean(x: Tensor, scorer: Scorer, unit: float = 1.0) -> Tensor:
    moments = (scorer.preprocessing.mean, scorer.preprocessing.std)
    mean, std = (x.new_tensor([value * unit for value in values])[:, None, None] for values in moments)
    return x.sub_(mean).div_(std)


def _usable(size: tuple[int, int], scale: float) -> tuple[int, int]:
    if min(size) < 1:
        raise InvalidValue(f"at scale {scale} the image would have {size[0]} x {size[1]} pixels; use larger scales")
    return size


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise InvalidValue(f"the stride rate is a share of the crop in (0, 1], got {rate}")


def _check_floor(crop: int, rate: float) -> None:
    if int(crop * rate) < 1:
        raise InvalidValue(
            f"a crop of {crop} pixels with a stride rate of {rate} has a stride of 0; enlarge one of them"
        )


def _check_square(crop: object) -> None:
    if not isinstance(crop, int) or isinstance(crop, bool) or crop < 1:
        raise InvalidValue(f"the crop of this protocol is a square of one number of pixels >= 1, got {crop}")
