"""Settings of the transforms of `perpixel.data.augment`, checked; a transform whose probability is 0 never happens.

Probabilities are per training sample. Sizes are shares of the training window, strengths shares of the full scale, so
that a setting means the same for every crop size and bit depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from perpixel.errors import InvalidValue

__all__ = ["Augment", "Border", "HoleLabels", "PluggedStyle"]

Border: TypeAlias = Literal["fill", "mirror"]
HoleLabels: TypeAlias = Literal["ignore", "keep"]
PluggedStyle: TypeAlias = Literal["auto", "arrays", "albumentations", "torchvision"]

_PROBABILITIES = (
    "affine",
    "blur",
    "noise",
    "gamma",
    "hue",
    "grayscale",
    "cutout",
    "cutmix",
    "classmix",
    "copy_paste",
    "mosaic",
    "plugged_probability",
)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Everything that `data.augment` may do; sources are named in the file of each family.

    Raises:
        InvalidValue: a value is outside its range, or two settings exclude each other.
    """

    affine: float = 0.0
    """Probability of one random affine map of the window: stretched, sheared, turned, then shifted."""
    rotate: float = 30.0
    """Largest angle either way in degrees, in [0, 180]; uniform."""
    shear: float = 0.0
    """Largest angle in degrees, in [0, 60], by which columns lean either way; uniform."""
    stretch: float = 1.0
    """Largest ratio of height to width either way, in [1, 4]; uniform in its logarithm, the area stays."""
    translate: float = 0.0
    """Largest shift either way along each axis as a share of the window's side, in [0, 1]; uniform."""
    border: Border = "fill"
    """What is shown beyond the image's edge: the padding value with label 255, or the image mirrored."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation in pixels, in (0, 8]; uniform."""
    noise: float = 0.0
    """Probability of Gaussian noise, independent per pixel and channel."""
    noise_std: tuple[float, float] = (0.01, 0.05)
    """Smallest and largest standard deviation as a share of the full scale, in [0, 0.5]; uniform."""
    gamma: float = 0.0
    """Probability that each value v of [0, 1] becomes v^g."""
    gamma_range: tuple[float, float] = (0.7, 1.5)
    """Smallest and largest exponent g, in [0.1, 10]; uniform in its logarithm."""
    hue: float = 0.0
    """Probability that colours are turned about the grey axis; images without three channels stay as they are."""
    hue_degrees: float = 18.0
    """Largest angle either way, in [0, 180]; uniform."""
    grayscale: float = 0.0
    """Probability that colours are replaced by their luma; images without three channels stay as they are."""
    cutout: float = 0.0
    """Probability that rectangles are covered with the padding value."""
    cutout_holes: int = 1
    """How many rectangles, in [1, 64]."""
    cutout_size: tuple[float, float] = (0.1, 0.5)
    """Smallest and largest side of a rectangle as a share of the window's side, in (0, 1]; uniform, per side."""
    cutout_labels: HoleLabels = "ignore"
    """Labels under a rectangle: 255, or what they were."""
    cutmix: float = 0.0
    """Probability that a rectangle shows another sample."""
    cutmix_alpha: float = 1.0
    """The rectangle's share of the window is drawn from Beta(alpha, alpha), alpha > 0."""
    classmix: float = 0.0
    """Probability that half the classes of another sample are pasted over this one."""
    copy_paste: float = 0.0
    """Probability that the pixels of ``copy_paste_classes`` of another sample are pasted over this one."""
    copy_paste_classes: tuple[int, ...] = ()
    """Train ids of the rare classes that are pasted, each in [0, 254]."""
    mosaic: float = 0.0
    """Probability that the window is made of four samples around a random point."""
    max_class_share: float = 1.0
    """Windows in which one class covers more of the labelled pixels are drawn again, in (0, 1]; 1 takes any."""
    max_class_tries: int = 10
    """How often at most, in [1, 100]; the last one is taken."""
    plugged: Callable[..., Any] | None = None
    """A transform of the user's own, run last; see `plugged`. It must be picklable where workers are used."""
    plugged_probability: float = 1.0
    plugged_style: PluggedStyle = "auto"
    """How it is called: as albumentations, as torchvision v2, with arrays, or found out from where it comes from."""

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            self._within(name, 0, 1)
        self._within("rotate", 0, 180)
        self._within("shear", 0, 60)
        self._within("stretch", 1, 4)
        self._within("translate", 0, 1)
        self._within("hue_degrees", 0, 180)
        self._within("cutout_holes", 1, 64)
        self._within("max_class_tries", 1, 100)
        self._range("blur_sigma", 0.01, 8)
        self._range("noise_std", 0, 0.5)
        self._range("gamma_range", 0.1, 10)
        self._range("cutout_size", 0.001, 1)
        for name, values in (("border", Border), ("cutout_labels", HoleLabels), ("plugged_style", PluggedStyle)):
            if getattr(self, name) not in get_args(values):
                raise InvalidValue(f"augment.{name} is one of {get_args(values)}, got {getattr(self, name)!r}")
        if not 0 < self.max_class_share <= 1:
            raise InvalidValue(f"augment.max_class_share lies in (0, 1], got {self.max_class_share}")
        if not 0.05 <= self.cutmix_alpha <= 100:
            raise InvalidValue(f"augment.cutmix_alpha lies in [0.05, 100], got {self.cutmix_alpha}")
        if self.copy_paste and not self.copy_paste_classes:
            raise InvalidValue("augment.copy_paste needs augment.copy_paste_classes: the train ids that are pasted")
        for label in self.copy_paste_classes:
            if not 0 <= label <= 254:
                raise InvalidValue(f"augment.copy_paste_classes holds train ids in [0, 254], got {label}")
        if self.plugged is not None and not callable(self.plugged):
            raise InvalidValue(f"augment.plugged is called with image and mask, and {self.plugged!r} cannot be called")

    @property
    def mixes(self) -> bool:
        """Whether any transform needs a second sample."""
        return max(self.cutmix, self.classmix, self.copy_paste, self.mosaic) > 0

    def _within(self, name: str, low: float, high: float) -> None:
        if not low <= getattr(self, name) <= high:
            raise InvalidValue(f"augment.{name} lies in [{low}, {high}], got {getattr(self, name)}")

    def _range(self, name: str, low: float, high: float) -> None:
        values = getattr(self, name)
        if len(values) != 2 or not low <= values[0] <= values[1] <= high:
            raise InvalidValue(f"augment.{name} is (smallest, largest) within [{low}, {high}], got {values}")
