"""A configuration's data → label space, splits, data sets, and what was decided on the way.

`prepare_data` only reads, so that data which cannot be used is refused before a run folder is made or replaced.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perpixel.build.run_files import SPLIT_FILE, sizes_by_name
from perpixel.config import AugmentChoice, DataChoice, RunConfig
from perpixel.data import (
    Augmentation,
    DataSource,
    Item,
    SegmentationDataset,
    SplitSummary,
    TrainBatches,
    check_trainable,
    fingerprint,
    infer_labels,
    load_split,
    make_split,
    names_digest,
    summarise,
)
from perpixel.data.augment.plugged import PluggedByName
from perpixel.data.augment.settings import Augment
from perpixel.engine import RunFolder
from perpixel.engine.distributed import World
from perpixel.errors import ConfigError, DataError, nearest
from perpixel.labels import LabelSpace
from perpixel.ops.normalize import padding_fractions
from perpixel.types import Preprocessing

__all__ = [
    "RunData",
    "augmentation",
    "check_stage_data",
    "choose_workers",
    "prepare_data",
    "record_data",
    "select_split",
    "stage_batches",
]

_PER_STAGE = (
    "crop_size",
    "scales",
    "scale_range",
    "flip",
    "brightness",
    "contrast",
    "saturation",
    "class_crop",
    "elastic",
    "elastic_grid",
    "rotation",
    "mirror",
    "augment",
    "rare_images",
    "batch_size",
)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The data of a run, opened and checked."""

    labels: LabelSpace
    train: SegmentationDataset
    val: SegmentationDataset
    test: SegmentationDataset | None
    summaries: Mapping[str, SplitSummary]
    """Of the splits that are trained on and scored while training, by name."""
    description: Mapping[str, Any]
    """The content of data.json."""
    made_split: Mapping[str, tuple[Item, ...]] | None
    """The split that was made, for the run folder to keep; None where the data has its own."""
    notes: Notes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and sizes of the files."""
        return str(self.description["fingerprint"])


@dataclass(frozen=True)
class Notes:
    """What was decided for the user, and what they should be warned of."""

    decisions: list[tuple[str, str, str]] = field(default_factory=list)
    """(what, choice, reason)."""
    warnings: list[str] = field(default_factory=list)


def prepare_data(
    config: RunConfig, source: DataSource, *, in_channels: int, stored_split: Path | None = None
) -> RunData:
    """Finds the label space and the splits of a data source and reads every mask once.

    Args:
        config: Its ``data`` and ``labels`` count.
        source: The opened data.
        in_channels: Image channels that the network takes.
        stored_split: The split of an earlier part of the run, where it exists.

    Raises:
        DataError: the data cannot be used as it is; names file, class or split, and the way out.
        ConfigError: there is no such label space.
    """
    choice = config.data
    notes = Notes([("data", source.format, note) for note in source.notes])
    labels = _labels(config, source, notes)
    splits, made = _splits(source, choice, labels, stored_split, notes)

    def dataset(split: str) -> SegmentationDataset:
        return SegmentationDataset(
            splits[split][: choice.limit],
            labels,
            in_channels=in_channels,
            mask_encoding=choice.mask_encoding,
            cache_mb=choice.cache_mb if split == choice.train_split else 0,
            max_pixels=choice.max_pixels,
        )

    train, val = dataset(choice.train_split), dataset(choice.val_split)
    summaries = {choice.train_split: summarise(train), choice.val_split: summarise(val)}
    for split, summary in summaries.items():
        role = "train" if split == choice.train_split else "val"
        shown = split if split.startswith(role) else f"{role} ({split})"
        notes.warnings.extend(check_trainable(summary, labels, shown, allow_absent_classes=choice.allow_absent_classes))
    return RunData(
        labels=labels,
        train=train,
        val=val,
        test=dataset(choice.test_split) if choice.test_split else None,
        summaries=summaries,
        description={
            **_description(labels, summaries, [*train.items, *val.items]),
            "files": sizes_by_name({split: splits[split] for split in summaries}),
        },
        made_split=splits if made else None,
        notes=notes,
    )


def record_data(data: RunData, run: RunFolder) -> None:
    """Writes data.json, the split that was made, and what was decided.

    Raises:
        RunError: the disk refuses.
    """
    for decision in data.notes.decisions:
        run.decision(*decision)
    said = {event.get("message") for event in run.events() if event["event"] == "warning"}  # a resumed run's
    for message in data.notes.warnings:
        if message not in said:
            run.event("warning", message=message)
    if data.made_split is not None:
        names = {split: [item.name for item in items] for split, items in data.made_split.items()}
        run.write_json(SPLIT_FILE, names)
    run.write_json("data.json", data.description)


def select_split(source: DataSource, split: str) -> tuple[Item, ...]:
    """Returns the items of a split; data without splits is one split that any name takes.

    Raises:
        DataError: the data has splits and this is none of them.
    """
    if split in source.splits:
        return source.splits[split]
    if set(source.splits) == {"all"}:
        return source.splits["all"]
    near = nearest(split, source.splits, end=".")
    raise DataError(f"{source.root} has no split {split!r}{near} It has: {', '.join(source.splits)}.")


def augmentation(choice: DataChoice) -> Augmentation:
    """Returns what happens to a training sample.

    Raises:
        InvalidValue: a transform of the user's own is not found.
    """
    return Augmentation(
        crop_size=choice.crop_size,
        scales=choice.scales,
        scale_range=choice.scale_range,
        flip=choice.flip,
        brightness=choice.brightness,
        contrast=choice.contrast,
        saturation=choice.saturation,
        class_crop=choice.class_crop,
        elastic=choice.elastic,
        elastic_grid=choice.elastic_grid,
        rotation=choice.rotation,
        mirror=choice.mirror,
        augment=None if choice.augment is None else _augment(choice.augment),
    )


def _augment(choice: AugmentChoice) -> Augment:
    values = choice.model_dump(exclude={"plugged"})
    return Augment(**values, plugged=None if choice.plugged is None else PluggedByName(choice.plugged))


def stage_batches(
    config: RunConfig,
    data: RunData,
    index: int,
    *,
    preprocessing: Preprocessing,
    start: int,
    count: int | None = None,
    workers: int,
    world: World,
) -> TrainBatches:
    """Returns the batches of a stage from number ``start`` on.

    Args:
        config: The run.
        data: Its data.
        index: Of the stage.
        preprocessing: Of its network, which decides what padding is filled with.
        start: Batches that are done.
        count: How many follow; None: all that the stage takes.
        workers: Loading processes.
        world: The processes that share each batch.
    """
    stage, choice = config.stages[index], config.data_of(index)
    return TrainBatches(
        data.train,
        augmentation(choice),
        batch_size=world.share(choice.batch_size),
        steps=stage.steps * stage.accumulate if count is None else start + count,
        seed=config.seed,
        start_step=start,
        workers=workers,
        pad_value=padding_fractions(preprocessing),
        rank=world.rank,
        world_size=world.size,
        class_presence=data.summaries[config.data.train_split].class_presence,
        rare_images=choice.rare_images,
    )


def choose_workers(choice: DataChoice, device: torch.device, processes: int = 1) -> tuple[int, str]:
    """Returns the number of loading processes for each of the processes that train, and why."""
    if choice.workers is not None:
        return choice.workers, "asked for"
    if device.type == "cpu":
        return 0, "the network keeps every core busy; loading takes a few per cent of a step"
    cores = os.cpu_count() or 1
    fed = "the GPU" if processes == 1 else f"{processes} GPUs"
    return min(8, max(1, (cores - 1) // processes)), f"{cores} CPU cores feed {fed}"


def check_stage_data(config: RunConfig) -> None:
    """Makes sure that stages change only how windows are drawn, since all of them share the run's data.

    Raises:
        ConfigError: a stage changes something else.
        InvalidValue: a transform of the user's own is not found.
    """
    changes: list[Mapping[str, Any]] = [config.data.model_dump(), *(stage.data for stage in config.stages)]
    for given in changes:
        plugged = (given.get("augment") or {}).get("plugged")
        if plugged is not None:
            PluggedByName(plugged)
    for index, stage in enumerate(config.stages):
        for key, value in stage.data.items():
            if key not in _PER_STAGE:
                raise ConfigError(
                    f"stages.{index}.data.{key} = {value!r}: a stage changes only how windows are drawn "
                    f"({', '.join(_PER_STAGE)}); all stages share the run's data, so set data.{key} instead"
                )


def _labels(config: RunConfig, source: DataSource, notes: Notes) -> LabelSpace:
    items = [item for split in source.splits.values() for item in split]
    spec = None if config.labels is None else str(config.labels)
    labels, reasons = infer_labels(
        items,
        spec,
        given=source.labels,
        mask_encoding=config.data.mask_encoding,
        max_pixels=config.data.max_pixels,
    )
    for reason in reasons or (f"asked for: {spec}",):
        notes.decisions.append(("labels", f"{labels.num_classes} classes", reason))
    return labels


def _splits(
    source: DataSource, choice: DataChoice, labels: LabelSpace, stored: Path | None, notes: Notes
) -> tuple[Mapping[str, tuple[Item, ...]], bool]:
    """Returns the splits by name, and whether they were made here."""
    wanted = [choice.train_split, choice.val_split, *([choice.test_split] if choice.test_split else [])]
    missing = [split for split in wanted if split not in source.splits]
    if not missing:
        return source.splits, False
    only = next(iter(source.splits)) if len(source.splits) == 1 else None
    if only == "all" or (only == choice.train_split and missing == [choice.val_split]):
        made = _made_split(source.splits[only], choice, labels, stored, notes)
        if choice.test_split is not None and choice.test_split not in made:
            raise DataError(
                f"data.test_split = {choice.test_split!r}: {source.root} has no such split. It is undivided, and of "
                f"undivided data only {choice.train_split} and {choice.val_split} are made; leave data.test_split away"
            )
        return made, True
    near = nearest(missing[0], source.splits, end=".")
    raise DataError(
        f"{source.root} has no split {missing[0]!r}{near} It has: {', '.join(source.splits)}. Choose with "
        "data.train_split, data.val_split and data.test_split."
    )


def _made_split(
    items: tuple[Item, ...], choice: DataChoice, labels: LabelSpace, stored: Path | None, notes: Notes
) -> Mapping[str, tuple[Item, ...]]:
    if stored is not None and stored.exists():
        return load_split(stored, items)
    whole = SegmentationDataset(items, labels, mask_encoding=choice.mask_encoding, max_pixels=choice.max_pixels)
    presence = summarise(whole).class_presence
    made = make_split(items, labels, class_presence=presence, val_share=choice.val_share, seed=choice.split_seed)
    counts = f"{len(made['train'])} train, {len(made['val'])} val"
    reason = f"the data has none: made with seed {choice.split_seed}, stratified by class, stored in {SPLIT_FILE}"
    notes.decisions.append(("split", counts, reason))
    return {choice.train_split: made["train"], choice.val_split: made["val"]}


def _description(labels: LabelSpace, summaries: Mapping[str, SplitSummary], items: list[Item]) -> dict[str, Any]:
    splits = {}
    for split, summary in summaries.items():
        values = summary.to_dict()
        values["sizes"] = {f"{height}x{width}": count for (height, width), count in summary.sizes.items()}
        splits[split] = values
    digests = {"fingerprint": fingerprint(items), "names": names_digest(items)}
    return {"labels": labels.to_dict(), **digests, "splits": splits}
