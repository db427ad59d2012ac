"""Which number format, and why."""

from __future__ import annotations

import re

import pytest
import torch

from perpixel.engine import precision
from perpixel.engine.precision import autocast, choose_precision
from perpixel.errors import InvalidValue


@pytest.mark.parametrize(
    ("capabilities", "name", "reason"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16", "the CPU has avx512_bf16$"),
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16", "avx512_bf16 and amx_bf16"),
        ({"avx2": True}, "fp32", "neither"),
        ({}, "fp32", "neither"),
    ],
)
def test_auto_on_cpu_follows_its_instruction_sets(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict, name: str, reason: str
) -> None:
    monkeypatch.setattr(precision, "_cpu_capabilities", lambda: capabilities)
    choice = choose_precision("auto", "cpu")
    assert choice.name == name
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_cuda_follows_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", "cuda:0").name == name


def test_auto_elsewhere_is_fp32() -> None:
    assert choose_precision("auto", "mps") == ("fp32", "nothing is known of bf16 on mps")


def test_named_precision_is_kept() -> None:
    assert choose_precision("bf16", "cpu") == ("bf16", "asked for")
    assert choose_precision("fp16", "cuda").name == "fp16"


def test_fp16_on_cpu_raises() -> None:
    with pytest.raises(InvalidValue, match="fp16 trains on CUDA only, the device is 'cpu'"):
        choose_precision("fp16", "cpu")


def test_unknown_precision_raises_with_nearest() -> None:
    with pytest.raises(InvalidValue, match=r"unknown precision 'bf61'.*did you mean 'bf16'"):
        choose_precision("bf61", "cpu")


def test_autocast_computes_in_the_named_format() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast("cpu", "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast("cpu", "fp32"):
        assert layer(x).dtype == torch.float32


def test_autocast_auto_raises() -> None:
    with pytest.raises(InvalidValue, match="autocast takes one of fp32, bf16, fp16, got 'auto'"):
        autocast("cpu", "auto")


def test_cpu_capabilities_are_read_from_torch() -> None:
    assert precision._cpu_capabilities() == dict(torch.cpu.get_capabilities())
