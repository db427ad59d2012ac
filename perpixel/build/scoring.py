"""Trained weights at work: load, evaluate, predict; and the scores of masks that any tool wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from perpixel.build.crf_choice import choose_crf
from perpixel.build.datasets import select_split
from perpixel.build.final import score_values
from perpixel.build.networks import choose_device
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.config import SCENES
from perpixel.data import MaskEncoding, SegmentationDataset, open_data
from perpixel.engine import choose_precision
from perpixel.errors import CheckpointError, DataError
from perpixel.evaluation import evaluate_masks, evaluate_network
from perpixel.inference import PredictionReport, Segmenter, predict_files
from perpixel.inference.dense_crf import DenseCRF
from perpixel.inference.segmenter import Precision
from perpixel.labels import LabelSpace
from perpixel.weights import load_artifact

__all__ = ["evaluate", "evaluate_predictions", "load", "predict"]


def load(
    artifact: str | Path, *, device: str = "cpu", precision: str = "fp32", crf: bool | str | DenseCRF = False
) -> Segmenter:
    """Returns a trained model, ready for images: ``load("runs/demo/best")("photo.jpg").mask``.

    Args:
        artifact: An artifact folder, or a run folder, whose ``best/`` is taken.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        crf: Refines with a dense CRF: True takes the numbers that the network was published with (DeepLab v2's where it
            has none), a name those of `DENSE_CRFS`.

    Raises:
        CheckpointError: the folder holds no artifact.
        InvalidValue: no dense CRF has this name.
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
        crf=choose_crf(loaded.network, crf),
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
    crf: bool | str | DenseCRF = False,
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
        crf: As in `load`; a model that is loaded already keeps its own.
        on_progress: Receives `Progress`.

    Returns:
        The keys of metrics.json; fractions in [0, 1], None where undefined.

    Raises:
        DataError: the data, the split or a mask cannot be used.
        CheckpointError: there is no such model.
    """
    segmenter = model if isinstance(model, Segmenter) else load(model, device=device, precision=precision, crf=crf)
    if str(data) == SCENES:
        raise DataError("generated scenes live in the run folder that made them: give RUN/scenes as the data")
    source = open_data(data)
    space = _mask_labels(segmenter.labels, source.labels if labels is None else LabelSpace.load(labels))
    network: Any = segmenter.network
    encoding = mask_encoding or str(segmenter.provenance.get("mask_encoding", "ids"))
    dataset = SegmentationDataset(
        select_split(source, split),
        space,
        in_channels=network.preprocessing.num_channels,
        mask_encoding=cast("MaskEncoding", encoding),
    )
    evaluation = evaluate_network(
        segmenter, dataset, border_width_px=border_width_px, on_progress=Reporter("evaluate", on_progress)
    )
    values = score_values(evaluation, segmenter.labels)
    return values | {"split": split if split in source.splits else "all", "model": segmenter.name}


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


def evaluate_predictions(
    predictions: str | Path,
    targets: str | Path,
    labels: str | int,
    *,
    missing: str = "refuse",
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Scores saved masks against targets, whatever tool wrote them; files are matched by stem.

    Raises:
        DataError: files are missing, left over or of another size; ``missing="wrong"`` counts missing ones as wrong.
    """
    space = LabelSpace.load(labels)
    evaluation = evaluate_masks(
        Path(predictions),
        Path(targets),
        space,
        missing=cast("Literal['refuse', 'wrong']", missing),
        on_progress=Reporter("evaluate", on_progress),
    )
    return score_values(evaluation, space)


def predict(
    model: str | Path | Segmenter,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    overlays: bool = True,
    device: str = "auto",
    precision: str = "auto",
    crf: bool | str | DenseCRF = False,
    on_progress: ProgressCallback | None = None,
) -> PredictionReport:
    """Writes palette masks, overlays and predictions.jsonl for images, folders and globs of any sizes.

    Raises:
        DataError: nothing was found, or some inputs could not be read (the others are written first).
    """
    segmenter = model if isinstance(model, Segmenter) else load(model, device=device, precision=precision, crf=crf)
    report = Reporter("predict", on_progress)
    return predict_files(
        segmenter, inputs, out, overlays=overlays, on_progress=lambda done, total, _: report(done, total)
    )
