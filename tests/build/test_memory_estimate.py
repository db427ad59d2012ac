"""estimate_training_memory: what a step holds at its peak, counted without allocating it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_runs import TINY, small_config
from torch._subclasses.fake_tensor import DataDependentOutputException

from perpixel.build import batch_choice, memory_estimate
from perpixel.build.batch_choice import fitting_batch
from perpixel.build.memory_estimate import MemoryEstimate, estimate_training_memory
from perpixel.build.memory_plan import plan_memory
from perpixel.config import ModelChoice, OptimizerChoice, RunConfig, TermChoice

GIVEN = MemoryEstimate(
    weights=10,
    gradients=10,
    optimizer=20,
    activations=400,
    batch_size=4,
    crop_size=(32, 32),
    counted_at="full size",
)


def config(**changes: object) -> RunConfig:
    plain = {"data": {"crop_size": [64, 96], "batch_size": 4}}
    whole = small_config("unused", **{**plain, **changes})
    fcn = whole.stages[0].model_copy(update={"model": ModelChoice(name="fcn", backbone=TINY, options={"width": 8})})
    return whole.model_copy(update={"stages": (fcn,)})


def test_estimate_text_names_batch_and_parts() -> None:
    text = replace(GIVEN, activations=2_000_000_000).text()
    assert text.startswith("about 2.00 GB for batches of 4 x 32 x 32: 2.00 GB activations and 1 MB weights")


def test_estimate_counts_without_content_what_a_real_step_allocates() -> None:
    probe = memory_estimate.StepProbe(config(), 3, 0, "fp32")
    counted = probe.fake_peaks(4, (64, 96))
    assert list(counted) == pytest.approx(list(probe._peaks(probe._network, 4, (64, 96))), rel=0.02)
    assert counted.highest == max(counted) > 0


def test_estimate_is_what_the_plan_fills_memory_with_and_shrinks_in_bf16() -> None:
    at_4 = estimate_training_memory(config(), 3)
    at_8 = estimate_training_memory(config(data={"crop_size": [64, 96], "batch_size": 8}), 3)
    plain = config().model_copy(update={"precision": "fp32"})
    assert plan_memory(plain, 3, memory=at_8.total).largest_batch == 8
    assert plan_memory(plain, 3, memory=at_8.total - 1).largest_batch == 7
    assert at_4.counted_at == "full size"
    assert estimate_training_memory(config(), 3, precision="bf16").activations < at_4.activations


def test_estimate_optimiser_running_mean_and_frozen_weights_count() -> None:
    base = config()
    sgd = estimate_training_memory(base, 3)
    stage = base.stages[0]
    changed = stage.model_copy(update={"optimizer": OptimizerChoice(name="adamw"), "ema_decay": 0.9})
    more = estimate_training_memory(base.model_copy(update={"stages": (changed,)}), 3)
    assert sgd.optimizer == sgd.gradients > 0
    assert more.optimizer == pytest.approx(2 * sgd.optimizer, rel=0.01)
    assert more.weights == sgd.weights + sgd.gradients
    frozen = base.model_copy(update={"stages": (stage.model_copy(update={"frozen": ("^backbone",)}),)})
    assert estimate_training_memory(frozen, 3).gradients < sgd.gradients


def test_estimate_where_a_loss_needs_numbers_is_extended_from_small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = estimate_training_memory(config(data={"crop_size": [192, 192], "batch_size": 4}), 3)

    def refuses(*_: object) -> int:
        raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)

    monkeypatch.setattr(memory_estimate.StepProbe, "fake_peaks", refuses)
    found = estimate_training_memory(config(data={"crop_size": [192, 192], "batch_size": 4}), 3)
    assert found.counted_at == "small crops"
    assert found.activations == pytest.approx(exact.activations, rel=0.15)


def test_estimate_of_a_loss_that_sorts_and_selects_is_counted() -> None:
    term = TermChoice(name="hard", loss="ohem")
    stage = config().stages[0].model_copy(update={"terms": (term,)})
    found = estimate_training_memory(config().model_copy(update={"stages": (stage,)}), 3)
    assert found.activations > 0


@pytest.mark.parametrize(
    ("free", "expected", "said"), [(10**12, 4, "evens out"), ("three", 3, "of 4, 3 fit"), (10, 1, "even one")]
)
def test_fitting_batch_follows_the_memory(
    monkeypatch: pytest.MonkeyPatch, free: int | str, expected: int, said: str
) -> None:
    wanted = config().model_copy(update={"precision": "fp32"})
    if free == "three":  # four fifths of it take three images
        three = config(data={"crop_size": [64, 96], "batch_size": 3})
        free = math.ceil(estimate_training_memory(three, 3).total / 0.8)
    monkeypatch.setattr(batch_choice, "free_memory", lambda _: free)
    batch, reason = fitting_batch(wanted, 3, device="cpu", wanted_because="noise evens out")
    assert batch == expected
    assert said in reason
