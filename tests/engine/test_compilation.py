"""torch.compile around the network that a step calls."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import TinyNetwork, criterion, make_batch, make_task
from torch import Tensor

from perpixel.engine import FitSettings, RunFolder, fit
from perpixel.engine.compilation import CompiledForward, choose_compilation, compiled
from perpixel.engine.step import train_step
from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing, SegOutput


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch.compiler.reset()


def no_warning(message: str) -> None:
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("mode", "device", "steps", "because", "compiles", "reason"),
    [
        (True, "cpu", 1, None, True, "asked for"),
        (False, "cuda", 10_000, None, False, "asked for"),
        (True, "cuda", 10_000, "a lattice", False, "a lattice"),
        ("auto", "cuda", 10_000, "a lattice", False, "a lattice"),
        ("auto", "cuda", 10_000, None, True, "10000 steps on a GPU"),
        ("auto", "cuda", 5, None, False, "5 steps are too few"),
        ("auto", "cpu", 10_000, None, False, "on cpu the convolutions decide"),
    ],
)
def test_choose_compilation_decides_with_a_reason(
    mode: Any, device: str, steps: int, because: str | None, compiles: bool, reason: str
) -> None:
    choice = choose_compilation(mode, device, steps=steps, eager_because=because)
    assert choice.compiles is compiles
    assert reason in choice.reason
    assert choice.name == ("compiled" if compiles else "eager")


def test_choose_compilation_unknown_mode_raises() -> None:
    with pytest.raises(InvalidValue, match="compile is 'auto', true or false, got 'yes'"):
        choose_compilation("yes", "cpu", steps=1)  # type: ignore[arg-type]


def test_compiled_not_wanted_is_the_network_itself() -> None:
    network = TinyNetwork()
    forward, choice = compiled(network, False, "cpu", steps=1, warn=no_warning)
    assert forward is network
    assert not choice.compiles


def test_compiled_network_keeps_its_state_and_steps_alike() -> None:
    torch.manual_seed(0)
    network = TinyNetwork().train()
    twin = copy.deepcopy(network)
    keys = list(network.state_dict())
    forward, choice = compiled(network, True, "cpu", steps=1, warn=no_warning, backend="eager")
    assert choice.compiles
    for one, called in ((network, forward), (twin, twin)):
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        for index in range(2):
            train_step(called, criterion, [make_batch(index)], optimizer, preprocessing=Preprocessing())
    assert list(network.state_dict()) == keys
    for name, value in twin.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def failing_backend(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler is installed\nmore of it")


def half_a_backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    """Compiles the forward pass into one that cannot go back."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise RuntimeError("no kernel for the way back")

    def run(*values: Tensor) -> Any:
        return [Broken.apply(value) if value.is_floating_point() else value for value in graph(*values)]

    return run


@pytest.mark.parametrize(
    ("network", "backend", "reason"),
    [
        (TinyNetwork, failing_backend, "no compiler is installed"),
        (TinyNetwork, half_a_backend, "no kernel for the way back"),
    ],
)
def test_compiled_that_fails_says_so_once_and_loses_no_step(network: type, backend: Any, reason: str) -> None:
    torch.manual_seed(0)
    plain = network().train()
    twin = copy.deepcopy(plain)
    said: list[str] = []
    forward = CompiledForward(plain, said.append, backend=backend)
    for one, called in ((plain, forward), (twin, twin)):
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        for index in range(2):
            train_step(called, criterion, [make_batch(index)], optimizer, preprocessing=Preprocessing())
    assert len(said) == 1
    assert "the network is not compiled and runs as it is" in said[0]
    assert reason in said[0]
    assert "more of it" not in said[0]
    for name, value in twin.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


class OutOfMemory(TinyNetwork):
    def forward(self, images: Tensor) -> SegOutput:
        raise torch.OutOfMemoryError("no room")


def test_compiled_out_of_memory_is_not_taken_for_a_failed_compiler() -> None:
    forward = CompiledForward(OutOfMemory(), no_warning, backend="eager")
    forward._compiled = OutOfMemory()
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        forward(torch.zeros(1, 3, 8, 8))


def test_compiled_mistake_of_the_network_itself_is_raised() -> None:
    said: list[str] = []
    forward = CompiledForward(TinyNetwork(), said.append, backend="eager")
    with pytest.raises(RuntimeError, match="channels"):
        forward(torch.zeros(1, 5, 8, 8))


def test_fit_compiled_writes_the_same_artifacts_and_averages(tmp_path: Path) -> None:
    settings = FitSettings(steps=4, evaluate_every=2, ema_decay=0.9)
    found = []
    for kind in ("compiled", "eager"):
        task = make_task(settings)
        if kind == "compiled":
            task = replace(task, forward=CompiledForward(task.network, no_warning, backend="eager"))
        fit(task, settings, RunFolder(tmp_path / kind))
        found.append(torch.load(tmp_path / kind / "best" / "weights.pt")["weights"])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_on_cuda_computes_the_same() -> None:
    network = TinyNetwork(dropout=0.0).cuda().train()
    forward, choice = compiled(network, "auto", "cuda", steps=10_000, warn=no_warning)
    assert choice.compiles
    images = torch.randn(2, 3, 32, 32, device="cuda")
    torch.testing.assert_close(forward(images).logits, network(images).logits, rtol=1e-3, atol=1e-4)
