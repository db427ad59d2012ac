"""Every benchmark runs, from its contenders to its limits; figures at these sizes mean nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from perpixel.bench import forward, fused_ops, roofline, training_step
from perpixel.bench.contest import Contender
from perpixel.bench.request import Request
from perpixel.bench.subjects import SUBJECTS, run_subject
from perpixel.errors import InvalidValue

QUICK = {
    "startup": ("commands",),
    "forward": ("unet_resnet18, batch 1",),
    "training_step": ("U-Net and DFN on ResNet-18, bf16",),
    "loader": ("geometry", "batch", "from files", "noise", "noise, alone", "cutmix"),
}
"""Rows for the slow test; of the others all."""


def test_subjects_name_modules_that_measure() -> None:
    for name, subject in SUBJECTS.items():
        module = import_module(f"perpixel.bench.{subject.module}")
        assert callable(module.measure), name
        assert subject.minutes > 0


def test_all_benchmarks_together_are_stated_to_take_less_than_25_minutes() -> None:
    assert sum(subject.minutes for subject in SUBJECTS.values()) <= 25


def test_unknown_subject_is_refused() -> None:
    with pytest.raises(InvalidValue, match="no benchmark 'metric'; did you mean 'metrics'"):
        run_subject("metric", Request())


def test_share_of_a_rate_counts_two_operations_per_multiplication() -> None:
    assert roofline.share(1.0, 2.0, 4e9) == 0.25
    assert roofline.share(1.0, 2.0, 4e9, training=True) == 0.75


def test_rates_of_a_format_that_the_device_lacks_are_those_of_float32() -> None:
    rates = roofline.Rates(matmul={"fp32": 1.0, "bf16": 2.0}, convolution={"fp32": 3.0}, copy=4.0)
    assert (rates.of("matmul", "tf32"), rates.of("matmul", "bf16"), rates.of("convolution", "tf32")) == (1.0, 2.0, 3.0)


def test_rates_of_the_processor_are_positive() -> None:
    rates = roofline.measure_rates("cpu", seconds=0.0, side=64)
    assert set(rates.matmul) == set(rates.convolution) == {"fp32", "bf16"}
    assert min(*rates.matmul.values(), *rates.convolution.values(), rates.copy) > 0


def test_number_formats_are_put_back_afterwards() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), roofline.numbers("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def result_of(contender: Contender) -> Any:
    return contender.run(contender.prepare())


@pytest.mark.parametrize("name", [*fused_ops.ROWS, *fused_ops.FULL_SIZE_ROWS])
def test_fused_and_plain_operations_agree(name: str) -> None:
    stated = {**fused_ops.ROWS, **fused_ops.FULL_SIZE_ROWS}[name]
    spec = {**stated, "classes": 5, "size": (64, 96), "batch": 2, "device": "cpu"}
    plain, fused = (result_of(found) for found in fused_ops.contenders(spec))
    if spec["op"] == "loss":
        torch.testing.assert_close(fused, plain, rtol=1e-6, atol=0)
    else:
        assert (fused == plain).float().mean() > 0.999


def test_training_contenders_go_one_step_from_the_same_weights() -> None:
    names = ["unet_resnet18: peer", "unet_resnet18: perpixel"]
    spec = {"contenders": names, "fmt": "fp32", "batch": 2, "side": 32, "device": "cpu"}
    plain, ours = (result_of(found) for found in training_step.contenders(spec))
    torch.testing.assert_close(ours.values["total"], plain.detach(), rtol=1e-4, atol=0)
    assert not ours.skipped


def test_forward_forms_give_the_classes_of_the_peer() -> None:
    forms = ["peer", "perpixel, fp32", "perpixel, fp32 optimized"]
    spec = {"network": "unet_resnet18", "forms": forms, "batch": 1, "side": 64, "device": "cpu"}
    peer, *ours = (result_of(found) for found in forward.contenders(spec))
    for classes in ours:
        assert (classes == peer).float().mean() > 0.999
    with pytest.raises(InvalidValue, match="unknown form 'perpixel, fp23'; did you mean 'perpixel, fp32'"):
        forward.contenders({**spec, "forms": ["perpixel, fp23"]})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SUBJECTS))
def test_subject_runs_at_tiny_sizes(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    request = Request(json=tmp_path / f"{name}.json", tiny=True, only=QUICK.get(name, ()), threads=1, say=said.append)
    report = run_subject(name, request)
    assert report.failed == []
    assert report.rows
    assert all(found["reached"] is not None for row in report.rows for found in row["limits"])
    assert said
