"""data.batches: a batch depends on its step alone, whoever builds it."""

from __future__ import annotations

import pickle
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.data.batches import Batch, TrainBatches
from perpixel.data.transforms import Augmentation
from perpixel.errors import DataError, InvalidValue

AUGMENTATION = Augmentation(
    crop_size=(12, 10), scale_range=(0.5, 2.0), brightness=0.4, contrast=0.4, saturation=0.4, class_crop=0.5
)


class Squares:
    """Seven small samples of different sizes; sample 3 may be broken, without mask, or 16-bit."""

    def __init__(self, *, count: int = 7, broken: str = "") -> None:
        self.count = count
        self.broken = broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        size = 14 + index, 20 - index
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        target: torch.Tensor | None = torch.randint(0, 4, size, generator=generator, dtype=torch.uint8)
        if index == 3 and self.broken == "file":
            raise DataError("images/three.png: not an image")
        if index == 3 and self.broken == "bug":
            raise RuntimeError("not the user's to mend")
        if index == 3 and self.broken == "mask":
            target = None
        if index == 3 and self.broken == "depth":
            image = image.int()
        return SimpleNamespace(image=image, target=target, name=f"sample-{index}", size=size)


def batches(dataset: Any = None, **changes: Any) -> TrainBatches:
    options: dict[str, Any] = {"batch_size": 3, "steps": 6, "seed": 5, "pad_value": (0.5, 0.4, 0.3), **changes}
    return TrainBatches(Squares() if dataset is None else dataset, AUGMENTATION, **options)


def same(first: Batch, second: Batch) -> bool:
    return first.names == second.names and all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_batch_has_the_shapes_dtypes_and_ranges_of_the_contract() -> None:
    batch = next(iter(batches()))
    assert batch.images.shape == (3, 3, 12, 10)
    assert batch.images.dtype == batch.target.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.target.shape == (3, 12, 10)
    assert set(batch.target.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert batch.jitter.shape == (3, 3)
    assert batch.jitter.dtype == torch.float32
    assert 0.6 <= batch.jitter.min() < 1 < batch.jitter.max() <= 1.4
    assert len(batch.names) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_any_number_of_workers_gives_the_same(workers: int) -> None:
    expected, result = list(batches()), list(batches(workers=workers))
    assert len(expected) == len(result) == 6
    assert all(same(a, b) for a, b in zip(expected, result, strict=True))


@pytest.mark.parametrize("start_step", [1, 4, 6])
def test_batches_after_a_restart_go_on_where_they_were(start_step: int) -> None:
    expected, resumed = list(batches()), batches(start_step=start_step)
    assert len(resumed) == 6 - start_step
    assert all(same(a, b) for a, b in zip(expected[start_step:], resumed, strict=True))


def test_batches_second_iteration_starts_again() -> None:
    source = batches(steps=2)
    assert all(same(a, b) for a, b in zip(source, source, strict=True))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_batches_of_all_ranks_make_up_the_batch_of_one_process(world_size: int) -> None:
    whole = list(batches(batch_size=6))
    ranks = [list(batches(batch_size=6 // world_size, rank=r, world_size=world_size)) for r in range(world_size)]
    for step, expected in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        joined = Batch(
            *(torch.cat([part[field] for part in parts]) for field in range(3)),
            tuple(name for part in parts for name in part.names),
        )
        assert same(joined, expected)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_positions_every_epoch_holds_every_sample_once(batch_size: int) -> None:
    source = batches(batch_size=batch_size, steps=21)
    flat = [position for step in range(21) for position in source.positions(step)]
    assert len(flat) == 21 * batch_size
    assert len(set(flat)) == len(flat)
    assert Counter(epoch for epoch, _ in flat) == dict.fromkeys(range(3 * batch_size), 7)
    orders = [tuple(index for e, index in flat if e == epoch) for epoch in range(3)]
    assert len(set(orders)) == 3


def test_batches_another_seed_changes_order_and_geometry() -> None:
    assert not same(next(iter(batches(batch_size=7))), next(iter(batches(batch_size=7, seed=6))))
    assert batches(batch_size=7).positions(0) != batches(batch_size=7, seed=6).positions(0)


def test_batches_same_image_in_another_epoch_is_cut_differently() -> None:
    first, second = list(batches(Squares(count=1), batch_size=1, steps=2))
    assert first.names == second.names
    assert not torch.equal(first.jitter, second.jitter)


def test_batches_builder_survives_pickling_for_spawned_workers() -> None:
    source = batches()
    copy = pickle.loads(pickle.dumps(source))
    assert same(next(iter(source)), next(iter(copy)))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_unreadable_file_raises_the_error_as_it_was(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        list(batches(Squares(broken="file"), workers=workers))
    assert str(caught.value) == "images/three.png: not an image"


def test_batches_other_errors_are_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="not the user's to mend"):
        list(batches(Squares(broken="bug")))


def test_batches_sample_without_mask_raises() -> None:
    with pytest.raises(DataError, match="sample-3 has no mask"):
        list(batches(Squares(broken="mask")))


def test_batches_mixed_bit_depths_raise() -> None:
    with pytest.raises(DataError, match=r"sample-\d has torch.*, sample-\d in the same batch torch"):
        list(batches(Squares(broken="depth"), batch_size=7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"start_step": 7}, r"start_step lies in \[0, steps = 6\], got 7"),
        ({"rank": 2, "world_size": 2}, r"rank lies in \[0, world_size = 2\), got 2"),
        ({"workers": -1}, "got workers -1"),
        ({"seed": -3}, "and seed -3"),
        ({"dataset": Squares(count=0)}, "holds no samples"),
    ],
)
def test_batches_number_out_of_range_raises(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        batches(**changes)


def test_batches_wrong_padding_raises_at_the_first_batch() -> None:
    with pytest.raises(InvalidValue, match=r"pad_value .*\(124, 117, 104\)"):
        next(iter(batches(pad_value=(124, 117, 104))))


def test_batch_to_moves_every_tensor_and_keeps_the_names() -> None:
    batch = next(iter(batches()))
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in moved[:3]} == {"meta"}
    assert moved.names == batch.names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_pinned_copies_to_the_device_unchanged() -> None:
    batch = next(iter(batches())).pin_memory()
    assert all(tensor.is_pinned() for tensor in batch[:3])
    assert same(batch.to("cuda", non_blocking=True).to("cpu"), batch)


RARE = np.eye(2, dtype=bool)[[0, 0, 0, 0, 1, 0, 0]]  # sample 4 alone holds the second class


def test_batches_rare_images_come_more_often_and_never_alike() -> None:
    # f = 1/7 and a threshold of 1: sqrt(7) = 2.6 times as often as images of the other class, sqrt(7/6) = 1.1 times
    rare = batches(class_presence=RARE, rare_images=1.0, steps=70)
    drawn = Counter(index for step in range(70) for _, index in rare.positions(step))
    assert drawn[4] / (210 / 7) == pytest.approx(7 * 7**0.5 / (7**0.5 + 6 * (7 / 6) ** 0.5), abs=0.05)
    jitters = [
        tuple(row.tolist())
        for batch in rare
        for row, name in zip(batch.jitter, batch.names, strict=True)
        if name == "sample-4"
    ]
    assert len(set(jitters)) == len(jitters)


def test_batches_rare_images_go_on_after_a_restart_with_workers() -> None:
    options: dict[str, Any] = {"class_presence": RARE, "rare_images": 1.0}
    expected, resumed = list(batches(**options)), list(batches(start_step=2, workers=2, **options))
    assert all(same(a, b) for a, b in zip(expected[2:], resumed, strict=True))


def test_batches_rare_images_without_presence_are_refused() -> None:
    with pytest.raises(InvalidValue, match="rare_images needs class_presence"):
        batches(rare_images=0.5)
