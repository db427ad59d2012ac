"""The options of ``perpixel evaluate``, in groups: of a model, of saved masks, and of what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from perpixel.cli.inference_options import parse_scales, parse_tile
from perpixel.errors import InvalidValue, nearest

__all__ = ["DEFAULT_BORDER_WIDTH", "MaskOptions", "MeasureOptions", "ModelOptions", "parse_bf", "parse_widths"]

DEFAULT_BORDER_WIDTH = 5.0
"""Pixels."""

_BF_KINDS: dict[str, type] = {
    "tolerance_px": float,
    "tolerance_diagonal": float,
    "strict": bool,
    "connectivity": int,
    "border_is_contour": bool,
    "void": str,
    "matching": str,
}
_BF_KNOWN = ", ".join(_BF_KINDS)

_OF_A_MODEL = Group("Of a model", sort_key=1)
_OF_SAVED_MASKS = Group("Of saved masks", sort_key=2)
_MEASURES = Group("What is measured", sort_key=3)


@Parameter(name="*", group=_OF_A_MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is run."""

    data: Annotated[str | None, Parameter(help="The data set, [format:]path.")] = None
    split: Annotated[str, Parameter(help="Split of the data set.")] = "val"
    device: Annotated[str, Parameter(help="auto, cpu or cuda.")] = "auto"
    precision: Annotated[str, Parameter(help="fp32, auto, bf16 or fp16.")] = "fp32"
    crf: Annotated[
        bool, Parameter(help="Refines with a dense CRF, with the numbers that the network was published with.")
    ] = False
    crf_set: Annotated[
        str | None,
        Parameter(help="The same with other numbers: a published set such as deeplab_v1, or a YAML file."),
    ] = None
    min_region: Annotated[
        int, Parameter(help="Gives connected regions with fewer pixels to the class around them.")
    ] = 0
    thresholds: Annotated[
        str | None,
        Parameter(help="Least probability per class, name=0.5,other=0.3 or a YAML file; else the fallback."),
    ] = None
    fallback: Annotated[
        str, Parameter(help="next (the next best class over its threshold), ignore (scored as wrong), or a class name.")
    ] = "next"
    protocol: Annotated[
        str | None,
        Parameter(
            help="A published test-time protocol: torchseg, semseg, encoding, deeplab, hrnet or cityscapes-whole, each "
            "with :DATA for its settings of another data set."
        ),
    ] = None
    scales: Annotated[
        str | None,
        Parameter(help="Sizes to see each image in, such as 0.5,0.75,1,1.25,1.5,1.75; probabilities are averaged."),
    ] = None
    flip: Annotated[
        bool | None, Parameter(help="Sees each image mirrored too; a protocol says itself unless told.")
    ] = None
    tile: Annotated[str | None, Parameter(help="Windows over each image, pixels of a side or HEIGHT,WIDTH.")] = None
    memory: Annotated[
        str | None,
        Parameter(
            help="What the work on an image may take beside the model, such as 4GB; larger ones go tile by tile."
        ),
    ] = None
    crf_search: Annotated[
        int | None,
        Parameter(
            help="Searches the dense CRF's numbers on so many images of the split, in place of scoring, and says what "
            "they gain on others."
        ),
    ] = None
    crf_out: Annotated[Path | None, Parameter(help="YAML file for the numbers found, which --crf-set takes.")] = None

    def given(self) -> list[str]:
        """Returns the options that make no sense without a model, as they are written."""
        values = {
            "--data": self.data,
            "--split": None if self.split == "val" else self.split,
            "--device": None if self.device == "auto" else self.device,
            "--precision": None if self.precision == "fp32" else self.precision,
            "--crf": self.crf or None,
            "--crf-set": self.crf_set,
            "--min-region": self.min_region or None,
            "--thresholds": self.thresholds,
            "--fallback": None if self.fallback == "next" else self.fallback,
            "--protocol": self.protocol,
            "--scales": self.scales,
            "--flip": self.flip,
            "--tile": self.tile,
            "--memory": self.memory,
            "--crf-search": self.crf_search,
            "--crf-out": self.crf_out,
        }
        return [name for name, value in values.items() if value is not None]

    def procedure(self) -> dict[str, Any]:
        """Returns the arguments of `build.evaluate` that say how images are seen."""
        return {
            "protocol": self.protocol,
            "scales": parse_scales(self.scales),
            "flip": self.flip,
            "tile": parse_tile(self.tile),
        }


@Parameter(name="*", group=_OF_SAVED_MASKS)
@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Where saved masks are and what is done about those that are missing."""

    predictions: Annotated[Path | None, Parameter(help="Folder of predicted masks.")] = None
    targets: Annotated[
        Path | None, Parameter(help="Folder of true masks, matched by path without suffix, or by --pattern.")
    ] = None
    pattern: Annotated[
        str | None,
        Parameter(
            help="PREDICTION=TARGET: file names in which `{name}` stands for what both share, `*` for any text and "
            "`**/` for any folders, such as `{name}_leftImg8bit.png=**/{name}_gtFine_labelIds.png`; =INSTANCES as a "
            "third part."
        ),
    ] = None
    missing: Annotated[
        Literal["refuse", "wrong"],
        Parameter(
            help="Targets without a usable prediction, and predicted ids that are no class, are refused, or wrong."
        ),
    ] = "refuse"
    against: Annotated[
        Path | None, Parameter(help="Folder of other predictions for the same targets: is the difference real?")
    ] = None
    instances: Annotated[
        Path | None, Parameter(help="Folder of Cityscapes *_instanceIds.png, for its iIoU; implies --cityscapes.")
    ] = None
    workers: Annotated[int | None, Parameter(help="Processes; without it all cores where that is faster.")] = None

    def given(self) -> list[str]:
        """Returns the options that make no sense with a model, as they are written."""
        values = {
            "--predictions": self.predictions,
            "--targets": self.targets,
            "--pattern": self.pattern,
            "--missing": None if self.missing == "refuse" else self.missing,
            "--against": self.against,
            "--instances": self.instances,
            "--workers": self.workers,
        }
        return [name for name, value in values.items() if value is not None]


@Parameter(name="*", group=_MEASURES)
@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured besides the IoU family."""

    boundary: Annotated[bool, Parameter(help="BF score and Boundary IoU.")] = False
    bf: Annotated[
        str | None,
        Parameter(
            help="How BF scores are counted, such as tolerance_px=2,strict,connectivity=8,border_is_contour,"
            "void=dropped,matching=one_to_one; implies --boundary."
        ),
    ] = None
    dilation_ratio: Annotated[
        float | None,
        Parameter(help="Width of Boundary IoU's band as a share of the diagonal, else 0.02; implies --boundary."),
    ] = None
    trimap: Annotated[
        str | None, Parameter(help="Scores bands of these widths around true borders alone, pixels: 1,3,5.")
    ] = None
    region_sizes: Annotated[bool, Parameter(help="Recall of true regions by their size.")] = False
    calibration: Annotated[bool, Parameter(help="Whether a model's probabilities can be taken at their word.")] = False
    neurons: Annotated[bool, Parameter(help="ISBI's V_Rand and V_Info; class 0 is the membrane.")] = False
    cityscapes: Annotated[bool, Parameter(help="Cityscapes' category scores, from saved masks of its ids.")] = False
    intervals: Annotated[bool, Parameter(help="95 % intervals over images of every score.")] = False
    per_image: Annotated[bool, Parameter(help="The scores of every image, in the JSON; the worst are shown.")] = False
    convention: Annotated[
        str | None, Parameter(help="What this toolkit would print: mmseg, semseg, torchseg, torchmetrics, monai…")
    ] = None
    all_conventions: Annotated[
        bool, Parameter(help="One table of what every toolkit would print, and why they differ.")
    ] = False

    def chosen(self, *, cityscapes: bool = False) -> dict[str, Any]:
        """Returns the arguments of `build.choose_measures`."""
        return {
            "boundary": self.boundary,
            "boundary_options": parse_bf(self.bf)
            | ({} if self.dilation_ratio is None else {"dilation_ratio": self.dilation_ratio}),
            "trimap": parse_widths(self.trimap),
            "region_sizes": self.region_sizes,
            "neurons": self.neurons,
            "calibration": self.calibration,
            "convention": self.convention,
            "all_conventions": self.all_conventions,
            "cityscapes": self.cityscapes or cityscapes,
        }


def parse_bf(text: str | None) -> dict[str, Any]:
    """Reads ``tolerance_px=2,strict,void=dropped``: a word alone switches on; None is no option.

    Raises:
        InvalidValue: there is no such option, or its value is of another kind.
    """
    options: dict[str, Any] = {}
    for part in () if text is None else text.split(","):
        name, given, value = (word.strip() for word in part.partition("="))
        if name not in _BF_KINDS:
            raise InvalidValue(f"--bf has no option {name!r}{nearest(name, _BF_KINDS, end='.')} Known: {_BF_KNOWN}")
        kind = _BF_KINDS[name]
        if (kind is bool) == bool(given):
            how = "stands alone" if kind is bool else "needs a value after ="
            raise InvalidValue(f"--bf: {name} {how}, got {part.strip()!r}")
        try:
            options[name] = True if kind is bool else kind(value)
        except ValueError as error:
            raise InvalidValue(f"--bf: {name} is a number, got {value!r}") from error
    return options


def parse_widths(text: str | None) -> tuple[float, ...]:
    """Reads ``1,3,5``; None is no width.

    Raises:
        InvalidValue: something is no number.
    """
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidValue(f"--trimap is a list of widths in pixels such as 1,3,5, got {text!r}") from error
