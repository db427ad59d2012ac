"""Trained weights at work: load, evaluate, predict; and the scores of masks that any tool wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perpixel.build.crf_choice import choose_crf
from perpixel.build.datasets import select_split
from perpixel.build.networks import choose_device
from perpixel.build.procedure_choice import choose_procedure
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.score_values import score_values
from perpixel.config import SCENES
from perpixel.data import MaskEncoding, SegmentationDataset, infer_labels, open_data
from perpixel.data.image_files import MAX_PIXELS
from perpixel.engine import choose_precision
from perpixel.errors import CheckpointError, DataError, InvalidValue
from perpixel.evaluation import Measures, evaluate_network
from perpixel.inference import PredictionReport, Segmenter, predict_files
from perpixel.inference.dense_crf import DenseCRF
from perpixel.inference.large_images import LargeImages
from perpixel.inference.memory import parse_bytes
from perpixel.inference.postprocess import PostProcessing
from perpixel.inference.segmenter import Precision
from perpixel.inference.submissions import write_submission
from perpixel.inference.tiled_classes import TiledClasses
from perpixel.labels import LabelSpace
from perpixel.weights import load_artifact

__all__ = ["evaluate", "load", "open_scored", "predict"]


def load(
    artifact: str | Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    crf: bool | str | DenseCRF = False,
    postprocessing: PostProcessing | None = None,
    protocol: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    tile: int | tuple[int, int] | None = None,
) -> Segmenter:
    """Returns a trained model, ready for images: ``load("runs/demo/best")("photo.jpg").mask``.

    Args:
        artifact: An artifact folder, or a run folder, whose ``best/`` is taken.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        crf: Refines with a dense CRF: True takes the numbers that the network was published with (DeepLab v2's where it
            has none), a name those of `DENSE_CRFS` or of a YAML file (`read_crf`).
        postprocessing: Thresholds and the removal of small regions, after the CRF.
        protocol: A published test-time protocol, ``name`` or ``name:data`` of `PROTOCOLS`, with its settings.
        scales: Sizes to see the image in, or the protocol's instead of its own.
        flip: Sees mirrored images too; None is as the protocol says, without one no.
        tile: Side or (height, width) in pixels of windows over the image; None sees it whole, or as the protocol says.

    Raises:
        CheckpointError: the folder holds no artifact.
        InvalidValue: no dense CRF or protocol has this name, a setting is not usable, or the post-processing names no
            class of the model.
    """
    folder = Path(artifact)
    if not (folder / "model.yaml").exists() and (folder / "best" / "model.yaml").exists():
        folder = folder / "best"
    if not folder.exists():
        raise CheckpointError(
            f"{folder}: no such model. Give an artifact folder (model.yaml and model.safetensors) or a run"
        )
    loaded = load_artifact(folder)
    where, _ = choose_device(device)
    number_format, _ = choose_precision(precision, where)
    return Segmenter(
        loaded.network,
        loaded.labels,
        device=where,
        precision=cast("Precision", number_format),
        provenance=loaded.provenance,
        name=str(folder),
        procedure=choose_procedure(
            loaded.network, loaded.labels, protocol=protocol, scales=scales, flip=flip, tile=tile
        ),
        crf=choose_crf(loaded.network, crf),
        postprocessing=postprocessing,
        optimize=where.type == "cpu",  # on a GPU it brings nothing
    )


def evaluate(
    model: str | Path | Segmenter,
    data: str | Path,
    *,
    split: str = "val",
    labels: str | None = None,
    mask_encoding: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    border_width_px: float | None = 5,
    measures: Measures | None = None,
    intervals: bool = False,
    per_image: bool = False,
    crf: bool | str | DenseCRF = False,
    postprocessing: PostProcessing | None = None,
    protocol: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    tile: int | tuple[int, int] | None = None,
    memory: int | str | None = None,
    on_plan: Callable[[str], None] | None = None,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Scores a model on a data set, at the images' own resolution, over the whole set at once.

    Args:
        model: An artifact, a run folder, or what `load` returned.
        data: ``[format:]path``.
        split: Which split; data without splits is scored whole.
        labels: How the masks are stored when that differs from the model's own label space: a known name, a YAML file
            or a number. The classes must be the model's, in its order.
        mask_encoding: ``ids`` or ``colors``; None takes that of the data the model was trained on.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32``, ``auto``, ``bf16`` or ``fp16``.
        border_width_px: Band around true borders for the split of errors; None leaves it out.
        measures: What else to measure: boundary metrics, trimaps, region sizes, calibration, other toolkits' numbers.
        intervals: Adds 95 % intervals over images.
        per_image: Adds the scores of every image.
        crf: As in `load`; a model that is loaded already keeps its own.
        postprocessing: As in `load`, with the same exception.
        protocol: As in `load`, like scales, flip and tile; refused for a model that is loaded already.
        scales: As in `load`.
        flip: As in `load`.
        tile: As in `load`.
        memory: What the work on an image may take, such as ``"4GB"``; one that does not fit is cut into tiles. None
            sees every image whole.
        on_plan: Is told how the first image of each size is cut into tiles.
        on_progress: Receives `Progress`.

    Returns:
        The keys of metrics.json; fractions in [0, 1], None where undefined.

    Raises:
        DataError: the data, the split or a mask cannot be used.
        CheckpointError: there is no such model.
        InvalidValue: the memory is too little for one tile, or goes with a choice that needs whole images.
    """
    procedure = {"protocol": protocol, "scales": scales, "flip": flip, "tile": tile}
    segmenter = _opened(model, procedure, device=device, precision=precision, crf=crf, postprocessing=postprocessing)
    dataset, shown_split = open_scored(segmenter, data, split=split, labels=labels, mask_encoding=mask_encoding)
    evaluation = evaluate_network(
        segmenter,
        dataset,
        border_width_px=border_width_px,
        measures=measures,
        classes_of=None if memory is None else _tiled(segmenter, memory, on_plan),
        on_progress=Reporter("evaluate", on_progress),
    )
    values = score_values(evaluation, segmenter.labels, with_intervals=intervals, per_image=per_image)
    return values | {"split": shown_split, "model": segmenter.name}


def open_scored(
    segmenter: Segmenter, data: str | Path, *, split: str, labels: str | None, mask_encoding: str | None
) -> tuple[SegmentationDataset, str]:
    """Returns the images and targets of a split as `evaluate` scores them, and its name: ``all`` without splits.

    Raises:
        DataError: the data or the split cannot be used, or its classes are not the model's.
    """
    if str(data) == SCENES:
        raise DataError("generated scenes live in the run folder that made them: give RUN/scenes as the data")
    source = open_data(data)
    items = select_split(source, split)
    encoding = cast("MaskEncoding", mask_encoding or str(segmenter.provenance.get("mask_encoding", "ids")))
    stated = source.labels
    if labels is not None:  # the reader of the data knows better under which ids it holds these classes
        stated = infer_labels(items, labels, given=source.labels, mask_encoding=encoding).labels
    network: Any = segmenter.network
    dataset = SegmentationDataset(
        items,
        _mask_labels(segmenter.labels, stated),
        in_channels=network.preprocessing.num_channels,
        mask_encoding=encoding,
    )
    return dataset, split if split in source.splits else "all"


def _tiled(segmenter: Segmenter, memory: int | str, on_plan: Callable[[str], None] | None) -> TiledClasses:
    told = None if on_plan is None else lambda plan: on_plan(plan.text())
    return TiledClasses(segmenter, memory_bytes=parse_bytes(memory), on_plan=told)


def _mask_labels(model: LabelSpace, masks: LabelSpace | None) -> LabelSpace:
    """Returns how masks are read: by the data's own label space, if its classes are the model's."""
    if masks is None:
        return model
    numbered = any(space.names == LabelSpace.numbered(space.num_classes).names for space in (model, masks))
    if masks.num_classes != model.num_classes or (masks.names != model.names and not numbered):
        raise DataError(
            f"the masks have the {masks.num_classes} classes of label space {masks.name!r} ("
            f"{', '.join(masks.names[:8])}), the model the {model.num_classes} of {model.name!r} ("
            f"{', '.join(model.names[:8])}); only the same classes "
            "in the same order can be scored. Give the space of the masks with --labels, or fine-tune with --from."
        )
    return masks


def predict(
    model: str | Path | Segmenter,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    overlays: bool = True,
    device: str = "auto",
    precision: str = "auto",
    crf: bool | str | DenseCRF = False,
    postprocessing: PostProcessing | None = None,
    submit: str | None = None,
    partial: bool = False,
    protocol: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    tile: int | tuple[int, int] | None = None,
    memory: int | str | None = None,
    max_pixels: int | None = None,
    skip_errors: bool = False,
    on_progress: ProgressCallback | None = None,
    on_plan: Callable[[str], None] | None = None,
) -> PredictionReport:
    """Writes palette masks, overlays and predictions.jsonl for images, folders and globs of any sizes.

    With ``submit``, a key of `SUBMISSIONS`, what that test server takes is written and checked instead; ``partial``
    allows another number of images than its test set has. Protocol, scales, flip and tile are as in `load`.
    ``memory`` is what the work on an image may take, such as ``"4GB"`` (None: 60 % of what is free); what does not fit
    is segmented tile by tile, and ``on_plan`` is told how. ``max_pixels`` limits files that are decoded at once.
    With ``skip_errors`` inputs that cannot be read are ``failures`` of the report, not an error; a submission has none.

    Raises:
        DataError: nothing was found, or some inputs could not be read (the others are written first); or the model or
            an image does not fit the test server.
        InvalidValue: the memory is too little for one tile, or goes with a choice that needs whole images.
    """
    procedure = {"protocol": protocol, "scales": scales, "flip": flip, "tile": tile}
    segmenter = _opened(model, procedure, device=device, precision=precision, crf=crf, postprocessing=postprocessing)
    report = Reporter("predict", on_progress)
    if submit is not None:
        if memory is not None or max_pixels is not None:
            raise InvalidValue("memory and max_pixels do not go with submit: test servers' images are seen whole")
        return _submission(segmenter, inputs, out, submit, partial, report)
    tiles = _TileReporters(on_progress)
    large = LargeImages(
        segmenter,
        memory_bytes=None if memory is None else parse_bytes(memory),
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        on_plan=None if on_plan is None else lambda path, plan: on_plan(f"{path}: {plan.text()}"),
        on_tile=lambda path, done, total: tiles[path](done, total),
    )
    return predict_files(
        segmenter,
        inputs,
        out,
        overlays=overlays,
        skip_errors=skip_errors,
        large=large,
        on_progress=lambda done, total, _: report(done, total),
    )


class _TileReporters(dict[Path, Reporter]):
    """One reporter per image whose tiles are counted."""

    def __init__(self, on_progress: ProgressCallback | None) -> None:
        super().__init__()
        self._on_progress = on_progress

    def __missing__(self, path: Path) -> Reporter:
        self[path] = Reporter(f"tiles of {path.name}", self._on_progress)
        return self[path]


def _opened(model: str | Path | Segmenter, procedure: Mapping[str, Any], **choices: Any) -> Segmenter:
    """Loads a model that is named; one that is loaded already stays as it is.

    Raises:
        InvalidValue: another procedure is asked of a loaded model.
    """
    if not isinstance(model, Segmenter):
        return load(model, **procedure, **choices)
    named = [name for name, value in procedure.items() if value is not None]
    if named:
        raise InvalidValue(
            f"{', '.join(named)} cannot change a model that is loaded already; give them to load, or the model's folder"
        )
    return model


def _submission(
    segmenter: Segmenter,
    inputs: Sequence[str | Path],
    out: str | Path,
    submit: str,
    partial: bool,
    report: Reporter,
) -> PredictionReport:
    written = write_submission(
        segmenter, inputs, out, submit, partial=partial, on_progress=lambda done, total, _: report(done, total)
    )
    return PredictionReport(
        out=Path(out),
        images=written.images,
        pixels=written.pixels,
        seconds=written.seconds,
        failures=(),
        notes=written.notes,
        submission=written.path,
    )
