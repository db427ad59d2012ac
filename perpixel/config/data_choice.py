"""Where images and masks come from, how they are split, and how training windows are drawn from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from perpixel.config.augment_choice import AugmentChoice
from perpixel.config.fields import Number, Strict, Whole, conflict

__all__ = ["SCENES", "DataChoice", "SceneChoice"]

SCENES = "scenes"
"""Value of ``data.source`` that asks for generated street scenes."""

_Factor: TypeAlias = Annotated[Number, Field(ge=1 / 16, le=16)]
_Side: TypeAlias = Annotated[Whole, Field(ge=1)]


class SceneChoice(Strict):
    """Generated street scenes: how many and what they are like."""

    train: Whole = Field(default=200, ge=1, description="Scenes to train on; 200 are generated in seconds.")
    val: Whole = Field(default=40, ge=1, description="Scenes to validate on.")
    test: Whole = Field(default=0, ge=0, description="Scenes of a test split; 0 makes none.")
    height: Whole = Field(default=128, ge=32, le=4096, description="Rows of a scene, pixels; 128 is quick on a CPU.")
    width: Whole = Field(default=128, ge=32, le=4096, description="Columns of a scene, pixels.")
    inconsistency: Number = Field(
        default=0.3, ge=0, le=1, description="How differently one class looks within one scene, in [0, 1]."
    )
    indistinction: Number = Field(
        default=0.3, ge=0, le=1, description="How alike neighbouring classes look, in [0, 1]."
    )
    seed: Whole = Field(default=0, ge=0, lt=2**63, description="Start of the random stream of the scenes.")


class DataChoice(Strict):
    """The data set, its splits and the augmentation of training windows."""

    source: str | None = Field(
        default=None, description="[format:]path such as camvid:/d or /folder, or 'scenes'; null: given on the way."
    )
    images: str | None = Field(default=None, description="Folder of images, together with masks instead of source.")
    masks: str | None = Field(default=None, description="Folder of masks, paired with images by name.")
    scenes: SceneChoice | None = Field(default=None, description="Generated scenes; read when source is 'scenes'.")
    fixes: str | None = Field(
        default=None, description="Mapping file of `perpixel data check --fix`: what to leave out or read otherwise."
    )
    train_split: str = Field(default="train", min_length=1, description="Split that is trained on.")
    val_split: str = Field(default="val", min_length=1, description="Split that is scored while training.")
    test_split: str | None = Field(default=None, description="Split that is scored once at the end; null is none.")
    val_share: Number = Field(
        default=0.2, gt=0, lt=1, description="Share of images drawn for validation where the data has no such split."
    )
    split_seed: Whole = Field(default=0, ge=0, lt=2**63, description="Seed of that draw; apart from the run's seed.")
    mask_encoding: Literal["ids", "colors"] = Field(
        default="ids", description="What mask pixels hold: class ids, or colours that are themselves the labels."
    )
    crop_size: tuple[_Side, _Side] = Field(
        default=(256, 256), description="Training window (height, width), pixels; 256 suits small images and CPUs."
    )
    scales: tuple[_Factor, ...] | None = Field(
        default=None, min_length=1, description="Resize factors of which one is drawn per image; null draws none."
    )
    scale_range: tuple[_Factor, _Factor] | None = Field(
        default=None, description="Lowest and highest factor of a continuous draw, instead of scales."
    )
    flip: Number = Field(default=0.5, ge=0, le=1, description="Probability of mirroring left and right.")
    brightness: Number = Field(default=0.0, ge=0, le=1, description="Largest relative change of brightness; 0: none.")
    contrast: Number = Field(default=0.0, ge=0, le=1, description="Largest relative change of contrast; 0: none.")
    saturation: Number = Field(default=0.0, ge=0, le=1, description="Largest relative change of saturation; 0: none.")
    class_crop: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that a window is drawn around a class drawn uniformly from the image.",
    )
    elastic: Number = Field(
        default=0.0, ge=0, description="Standard deviation of random elastic displacements, pixels; U-Net 10, 0: none."
    )
    elastic_grid: Whole = Field(default=3, ge=2, description="Points per side of the grid of displacements.")
    rotation: Number = Field(
        default=0.0, ge=0, le=180, description="Largest random rotation either way, degrees; 180: any angle, 0: none."
    )
    mirror: Whole = Field(
        default=0, ge=0, description="Pixels of mirrored image that windows may reach beyond its edges; 0: none."
    )
    augment: AugmentChoice | None = Field(
        default=None, description="Further transforms of training windows; null: none."
    )
    rare_images: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Images come more often that hold a class which a smaller share of images holds; 0: all alike.",
    )
    batch_size: Whole = Field(default=8, ge=1, description="Images per step over all devices.")
    workers: Whole | None = Field(default=None, ge=0, description="Loading processes; null is decided for the machine.")
    cache_mb: Whole = Field(default=1024, ge=0, description="Decoded images kept in memory, MiB; 0 keeps none.")
    allow_absent_classes: bool = Field(
        default=False, description="Accept classes without a training pixel; otherwise they are an error."
    )
    max_pixels: Whole = Field(
        default=178_956_970, ge=1, description="Images of more pixels are refused before they are decoded."
    )
    limit: Whole | None = Field(default=None, ge=1, description="First n images of each split, for trials; null: all.")

    @model_validator(mode="before")
    @classmethod
    def _scenes_have_settings(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") == SCENES and values.get("scenes") is None:
            return {**values, "scenes": {}}
        return values

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.scales is not None and self.scale_range is not None:
            message = (
                f"scales = {list(self.scales)} and scale_range = {list(self.scale_range)} exclude each other; "
                "set one of them to null"
            )
            conflict("DataChoice", message, "scale_range", value=self.scale_range)
        if self.scale_range is not None and self.scale_range[0] > self.scale_range[1]:
            conflict("DataChoice", "the lower factor comes first", "scale_range", value=self.scale_range)
        if (self.images is None) != (self.masks is None):
            given, lacking = ("images", "masks") if self.masks is None else ("masks", "images")
            message = f"needs data.{lacking} beside it: the folder of the other half of each pair"
            conflict("DataChoice", message, given, value=getattr(self, given))
        if self.augment and self.augment.affine and self.augment.border == "fill" and (self.elastic or self.rotation):
            message = "elastic and rotation mirror the image beyond its edge: set it to mirror, or turn by rotate alone"
            conflict("DataChoice", message, "augment", "border", value=self.augment.border)
        if self.source is not None and self.images is not None:
            message = f"excludes data.images = {self.images!r}; set one of them to null"
            conflict("DataChoice", message, "source", value=self.source)
        return self
