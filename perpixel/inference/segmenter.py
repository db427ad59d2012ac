"""Segmenter: raw images in, classes at the image's own size out, for any network that keeps the contract.

Shapes: B batch, C image channels, K classes, h w score map, H W image.
Scores are brought to the image's size before the class is chosen; label maps are never resized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from perpixel.data.image_files import read_image, to_channels
from perpixel.errors import InvalidValue, RunError
from perpixel.inference.dense_crf import DenseCRF, dense_crf
from perpixel.inference.optimized import optimized_copy
from perpixel.inference.padding import fitting_size, mirrored, padded
from perpixel.inference.postprocess import PostProcessing, final_classes
from perpixel.inference.procedures import PLAIN, Orientations, Procedure
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.segmentation import Segmentation
from perpixel.labels import LabelSpace
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing, SegOutput

__all__ = ["ImageLike", "Precision", "SegmentationNetwork", "Segmenter", "refined_scores"]

Precision = Literal["fp32", "bf16", "fp16"]
ImageLike: TypeAlias = "str | Path | Image.Image | NDArray[Any] | Tensor"

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FULL_SCALE_16 = 65535
_LEAST_PROBABILITY = torch.finfo(torch.float32).tiny


class SegmentationNetwork(Protocol):
    """What a Segmenter asks of a network, beside being an nn.Module."""

    num_classes: int
    align_corners: bool
    preprocessing: Preprocessing
    margin: int
    minimum_size: int

    def valid_size(self, height: int, width: int) -> tuple[int, int]: ...
    def __call__(self, images: Tensor) -> SegOutput: ...


class Segmenter:
    """Runs a network on images as they come: normalises, pads where the network needs it, and cuts back.

    The network is moved to ``device``; it runs in evaluation mode and gets its own mode back after each call.
    Images smaller than the network takes, or of a size that it cannot take, are padded below and to the right with
    its padding value. A network that loses a margin sees the image mirrored beyond its edges.

    Args:
        network: Keeps the contract of `SegmentationNetwork`.
        labels: What its classes mean.
        device: Where to compute, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        precision: ``"fp32"`` computes in the network's own dtype; ``"bf16"`` and ``"fp16"`` use autocast.
        provenance: Where the weights come from, as an artifact stores it.
        name: Shown to people.
        procedure: How the scores of an image come about, such as several scales; None runs the whole image once.
        crf: A dense CRF over the raw image that refines the probabilities at image size, as a last step; scores are
            then logarithms of its probabilities.
        postprocessing: Thresholds and the removal of small regions, after the CRF; they change classes, not scores.
        optimize: Runs a faster copy of the network (`optimized_copy`), made here: scores differ by rounding, later
            changes of ``network`` may not count, and the weights take twice their memory, in bf16 and fp16 1.5 times.

    Raises:
        InvalidValue: the labels do not fit the network or the post-processing, or device or precision are unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSpace,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        provenance: Mapping[str, Any] | None = None,
        name: str | None = None,
        procedure: Procedure | None = None,
        crf: DenseCRF | None = None,
        postprocessing: PostProcessing | None = None,
        optimize: bool = False,
    ) -> None:
        if precision not in get_args(Precision):
            raise InvalidValue(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")
        contract = cast(SegmentationNetwork, network)
        if contract.num_classes != labels.num_classes:
            raise InvalidValue(
                f"the network scores {contract.num_classes} classes and label space {labels.name!r} has "
                f"{labels.num_classes}; give the label space that the network was trained with"
            )
        self.device = _usable_device(device)
        # Several times faster in bf16 on a CPU, and the faster order on GPUs too.
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.labels = labels
        self.precision = precision
        self.provenance = dict(provenance or {})
        self.name = name or type(network).__name__
        self.procedure = procedure
        self.crf = crf
        if postprocessing is not None:
            postprocessing.check(labels)
        self.postprocessing = postprocessing
        self._contract = contract
        self._faster = optimized_copy(self.network, precision=precision).network if optimize else None

    def __call__(self, image: ImageLike) -> Segmentation:
        """Segments one image.

        Args:
            image: A file (EXIF orientation applied), a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W);
                8-bit values in uint8, 16-bit values in uint16 or int32. Alpha of files and PIL images is dropped; grey
                and RGB stand in for each other.

        Raises:
            DataError: the file cannot be read, or its channels do not fit the network.
            InvalidValue: an array or tensor is not an image.
        """
        pixels = to_channels(_raw_pixels(image), self._contract.preprocessing.num_channels, source=_source(image))
        scores = self._refined_map(pixels[None])
        with torch.no_grad():
            mask = self._final_classes(scores)[0].cpu().numpy()
        return Segmentation(mask=mask, labels=self.labels, image=pixels, score_map=scores.image(0))

    def logits(self, images: Tensor) -> Tensor:
        """Returns class scores (B, K, H, W) float32 at the size of raw images (B, C, H, W), uint8 or 16-bit int32.

        Raises:
            InvalidValue: the images have another shape or dtype.
            RunError: the network returns scores that are not finite.
        """
        with torch.no_grad():
            return self._refined_map(images).full().float()

    def classes(self, images: Tensor) -> Tensor:
        """Returns the classes (B, H, W) uint8 of raw images (B, C, H, W).

        Without post-processing equal to ``logits(images).argmax(1)`` but for near ties, for a K-th of the memory.

        Raises:
            InvalidValue: the images have another shape or dtype.
            RunError: the network returns scores that are not finite.
        """
        with torch.no_grad():
            return self._final_classes(self._refined_map(images))

    def unrefined_scores(self, images: Tensor) -> ScoreMap:
        """Returns the scores of raw images (B, C, H, W) before the dense CRF, at the resolution of the procedure.

        Raises:
            InvalidValue: the images have another shape or dtype.
            RunError: the network returns scores that are not finite.
        """
        with torch.no_grad():
            return self._score_map(images)

    def __repr__(self) -> str:
        return f"Segmenter({self.name}, {self.labels.num_classes} classes, {self.device}, {self.precision})"

    def _final_classes(self, scores: ScoreMap) -> Tensor:
        if self.postprocessing is None or self.postprocessing.is_empty:
            return scores.classes()
        return final_classes(scores, self.postprocessing, self.labels)

    @property
    def num_classes(self) -> int:
        """K."""
        return self._contract.num_classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How raw pixels become the network's input."""
        return self._contract.preprocessing

    @property
    def margin(self) -> int:
        """Image pixels that the network loses on each side."""
        return self._contract.margin

    @property
    def score_dtype(self) -> torch.dtype:
        """Type of the scores that procedures get: float32, or float64 for a network of that type."""
        return torch.float64 if self._input_dtype() == torch.float64 else torch.float32

    def fitting_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the least size of an image, >= (height, width), that needs no padding but the network's margin."""
        lost = 2 * self.margin
        given = fitting_size(self._contract, (height + lost, width + lost))
        return given[0] - lost, given[1] - lost

    def image_scores(self, images: Tensor) -> ScoreMap:
        """Scores raw images (B, C, H, W) whole, whatever the procedure.

        Raises:
            InvalidValue: the images have another shape or dtype.
            RunError: the network returns scores that are not finite.
        """
        self._check_batch(images)
        return self.input_scores(normalize(images.to(self.device, non_blocking=True), self.preprocessing))

    def input_scores(self, x: Tensor, *, orientations: Orientations = PLAIN, with_margin: bool = False) -> ScoreMap:
        """Scores normalised images (B, C, H, W) in V orientations together: (V B, K, h, w), first orientation first.

        They are padded, or mirrored beyond their edges, as the network needs; mirrored views are turned back.

        Args:
            x: As `normalize` returns them.
            orientations: False is the image as it is, True its mirror image.
            with_margin: The images hold the network's margin already; the scores cover what is within.

        Raises:
            RunError: the network returns scores that are not finite.
        """
        lost, height, width = self.margin, int(x.shape[-2]), int(x.shape[-1])
        beyond = 0 if with_margin else lost
        needed = (height + 2 * beyond, width + 2 * beyond)
        given = fitting_size(self._contract, needed)
        x = x.to(self.device, non_blocking=True)
        network = self.network if self._faster is None else self._faster
        with torch.inference_mode(), _evaluation_mode(network):
            if lost:
                x = mirrored(x, beyond, given)
            elif given != needed:
                x = padded(x, given, _padding(self.preprocessing))
            views = torch.cat([x.flip(-1) if mirror else x for mirror in orientations]) if any(orientations) else x
            with self._autocast():
                output = network(views.to(self._input_dtype(), memory_format=torch.channels_last))
            logits = output.logits.to(self.score_dtype).contiguous()
            if any(orientations):
                parts = zip(logits.split(x.shape[0]), orientations, strict=True)
                logits = torch.cat([part.flip(-1) if mirror else part for part, mirror in parts])
        self._check_finite(logits, height, width)
        return ScoreMap(
            logits=logits,
            covered=(given[0] - 2 * lost, given[1] - 2 * lost),
            size=(needed[0] - 2 * lost, needed[1] - 2 * lost),
            align_corners=self._contract.align_corners,
        )

    def _check_finite(self, scores: Tensor, height: int, width: int) -> None:
        if not bool(torch.isfinite(scores).all()):
            raise RunError(
                f"{self.name} returns scores that are not finite for images of {height} x {width} pixels in "
                f"{self.precision}; check the weights" + ("" if self.precision == "fp32" else ", or use fp32")
            )

    def _score_map(self, images: Tensor) -> ScoreMap:
        if self.procedure is None:
            return self.image_scores(images)
        self._check_batch(images)
        scores = self.procedure(self, images)
        self._check_finite(scores.logits, scores.size[0], scores.size[1])
        return scores

    def _refined_map(self, images: Tensor) -> ScoreMap:
        scores = self._score_map(images)
        return scores if self.crf is None else refined_scores(scores, images.to(self.device), self.crf)

    def _check_batch(self, images: Tensor) -> None:
        channels = self._contract.preprocessing.num_channels
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise InvalidValue(f"images must be (B, {channels}, H, W) without empty sides, got {tuple(images.shape)}")
        if images.dtype not in (torch.uint8, torch.int32):
            raise InvalidValue(
                f"images are raw pixels, uint8 or 16-bit values in int32, got {images.dtype}; the Segmenter normalises"
            )

    def _input_dtype(self) -> torch.dtype:
        parameter = next(self.network.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def refined_scores(scores: ScoreMap, images: Tensor, crf: DenseCRF) -> ScoreMap:
    """Returns scores (B, K, H, W) at image size that a dense CRF over raw images (B, C, H, W) has refined."""
    refined = dense_crf(scores.full().float().softmax(dim=1), images, crf)
    logits = refined.clamp_(min=_LEAST_PROBABILITY).log_()
    return replace(scores, logits=logits, covered=scores.size, probabilities=False)


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Runs in evaluation mode and restores the mode of every single module: frozen ones may differ from the rest."""
    training = [module for module in network.modules() if module.training]
    if training:
        network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _padding(preprocessing: Preprocessing) -> tuple[float, ...]:
    """What padding is for the network, per channel."""
    values = zip(preprocessing.padding, preprocessing.mean, preprocessing.std, strict=True)
    return tuple((value - mean) / std for value, mean, std in values)


def _usable_device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InvalidValue(f"no device {device!r}; give cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InvalidValue(f"device {device!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; use cpu")
    return chosen


def _source(image: ImageLike) -> str:
    return str(image) if isinstance(image, str | Path) else f"the given {type(image).__name__}"


def _raw_pixels(image: ImageLike) -> Tensor:
    """Returns the pixels (C, H, W) as uint8 or, for 16 bits, int32."""
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _from_array(_pil_pixels(image))
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise InvalidValue(f"an image tensor is (C, H, W), got shape {tuple(image.shape)}")
        return _from_array(image.detach().cpu().permute(1, 2, 0).numpy())
    raise InvalidValue(f"an image is a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def _pil_pixels(image: Image.Image) -> NDArray[Any]:
    if image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode == "F":
        raise InvalidValue("a PIL image of mode F holds fractions; give 8- or 16-bit pixels")
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def _from_array(pixels: NDArray[Any]) -> Tensor:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InvalidValue(f"an image array is (H, W) or (H, W, C) without empty sides, got shape {pixels.shape}")
    if pixels.dtype.name not in ("uint8", "uint16", "int32"):
        raise InvalidValue(f"an image holds uint8, or 16-bit values in uint16 or int32, got {pixels.dtype}")
    if pixels.dtype.name == "int32" and (pixels.min() < 0 or pixels.max() > _FULL_SCALE_16):
        raise InvalidValue(
            f"16-bit pixels lie in [0, {_FULL_SCALE_16}], got values from {pixels.min()} to {pixels.max()}"
        )
    kind = np.uint8 if pixels.dtype == np.uint8 else np.int32
    channels_first = np.array(pixels.transpose(2, 0, 1), dtype=kind, order="C")  # a copy: the caller's may be read-only
    return torch.from_numpy(channels_first)
