"""One pair of mask files, with the measures that need its pixels: boundaries, regions, instances.

Shapes: H W image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.decoding import MaskFile, read_mask_file
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.mask_folders import MaskFiles
from perpixel.evaluation.mask_pairs import Lookup, PairReader
from perpixel.evaluation.measures import IGNORED, ImageRecord
from perpixel.evaluation.pixel_measures import with_pixels
from perpixel.metrics.cityscapes import CITYSCAPES_IDS, CityscapesScores
from perpixel.metrics.pair_counts import BYTE_VALUES

__all__ = ["add_pixels"]


def add_pixels(
    reader: PairReader, record: ImageRecord, files: MaskFiles, prediction: MaskFile | None, target: MaskFile
) -> ImageRecord:
    """Returns a record with what is measured on the maps themselves (`PairReader.finish`).

    Raises:
        DataError: the instance numbers cannot be read or do not fit the target; names their file.
    """
    truth = _translated(target.ids, reader.target_lookup)
    if prediction is None:
        guess = np.full_like(truth, IGNORED)
    else:
        guess = _translated(prediction.ids, reader.prediction_lookup)
    record = with_pixels(record, guess, truth, reader.measures)
    if not reader.measures.cityscapes:
        return record
    scores = CityscapesScores()
    instances = None if files.instances is None else read_mask_file(files.instances).ids
    stored = np.zeros_like(target.ids) if prediction is None else _cityscapes_ids(prediction.ids)
    try:
        scores.add(stored, target.ids, instances)
    except InvalidValue as error:
        raise DataError(f"{files.instances}: {error}") from error
    return replace(record, cityscapes=scores)


def _cityscapes_ids(stored: NDArray[Any]) -> NDArray[Any]:
    """Predicted ids; ids that Cityscapes does not have become unlabeled, which is wrong wherever truth is valid."""
    return np.where(stored < len(CITYSCAPES_IDS), stored, stored.dtype.type(0))


def _translated(ids: NDArray[Any], lookup: Lookup) -> NDArray[np.uint8]:
    """Returns train ids (H, W), 255 where ignored or unknown."""
    table = np.where(lookup == -1, IGNORED, lookup).astype(np.uint8)
    if ids.dtype != np.uint8:
        mapped: NDArray[np.uint8] = table[ids]
        return mapped
    if np.array_equal(table[:BYTE_VALUES], np.arange(BYTE_VALUES)):
        return ids
    translated = ids.tobytes().translate(table[:BYTE_VALUES].tobytes())
    return np.frombuffer(translated, dtype=np.uint8).reshape(ids.shape)
