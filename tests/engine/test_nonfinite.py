"""Skipped updates: remembered, then explained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_fakes import Loss, TinyNetwork, batches, criterion, make_batch, make_task
from torch import Tensor, nn

from perpixel.engine.fit import FitSettings, fit
from perpixel.engine.nonfinite import SkipRecord, blamed, explain_nonfinite
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.step import train_step
from perpixel.errors import RunError
from perpixel.types import Preprocessing, SegOutput


class Exploding(nn.Module):
    """Divides by zero, in the value or in the gradient alone."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "value":
            return x / 0
        return x + torch.sqrt(x * 0) if self.where == "gradient" else x


def network_with(where: str) -> nn.Module:
    network = TinyNetwork(dropout=0)
    network.backbone.add_module("trap", Exploding(where))
    return network.train()


def explain(network: nn.Module, loss: object = criterion) -> str:
    return explain_nonfinite(network, loss, make_batch(0), preprocessing=Preprocessing(), precision="fp32")


def test_explain_names_the_first_module_whose_output_is_bad() -> None:
    assert (
        explain(network_with("value")) == "the first module whose output is not finite is 'backbone.trap' (Exploding)"
    )


def test_explain_names_the_loss_part() -> None:
    def bad(output: SegOutput, target: Tensor) -> Loss:
        good = criterion(output, target).total
        return Loss(good + torch.inf, {"main": good, "border": good + torch.inf})

    assert explain(network_with("nowhere"), bad) == "every module's output is finite, the loss is not: border"


def test_explain_names_the_parameter_whose_gradient_is_bad() -> None:
    found = explain(network_with("gradient"))
    assert found.startswith("outputs and loss are finite, the gradient is not: first of 'backbone.1.bias', in 3")


def test_explain_names_weights_and_images() -> None:
    network = network_with("nowhere")
    network.head.weight.data[0] = torch.nan
    assert explain(network) == "the weights themselves are not finite, first 'head.weight' of 1"
    scale = Preprocessing(value_range=float("inf"))
    found = explain_nonfinite(network_with("nowhere"), criterion, make_batch(0), preprocessing=scale, precision="fp32")
    assert found.startswith("the normalised images are not finite")


def test_explain_of_a_good_batch_says_so() -> None:
    assert explain(network_with("nowhere")).endswith("the batch is finite everywhere")


def test_explain_leaves_no_hooks() -> None:
    network = network_with("value")
    explain(network)
    assert all(not module._forward_hooks for module in network.modules())


def test_skip_record_reads_the_last_steps() -> None:
    record = SkipRecord(2)
    assert record.read() == []
    for step, flag in ((1, 1.0), (2, 0.0), (3, 1.0)):
        record.add(step, (f"n{step}",), torch.tensor(flag))
    assert record.read() == [3]
    assert record.names() == {2: ("n2",), 3: ("n3",)}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("where", ["value", "gradient"])
def test_step_not_finite_leaves_weights_and_optimizer(optimizer: str, where: str) -> None:
    network = network_with("nowhere")
    task = make_task(FitSettings(steps=4), optimizer=optimizer, network=network)
    for trap, skipped in (("nowhere", 0), (where, 1), ("nowhere", 0)):
        network.backbone.trap.where = trap
        before = [weight.detach().clone() for weight in network.parameters()]
        state = {key: value.clone() for entry in task.optimizer.state.values() for key, value in entry.items()}
        stats = train_step(
            network, criterion, [make_batch(1)], task.optimizer, preprocessing=Preprocessing(), clip_norm=1.0
        )
        same = [torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
        assert stats.skipped.item() == skipped
        assert all(same) if skipped else not any(same)
        if skipped:
            now = {key: value for entry in task.optimizer.state.values() for key, value in entry.items()}
            assert all(torch.equal(value, now[key]) for key, value in state.items())


def test_fp16_gradient_overflow_lowers_the_scale_and_is_not_reported() -> None:
    network = network_with("nowhere")
    task = make_task(FitSettings(steps=4), network=network)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for trap in ("gradient", "nowhere"):
        network.backbone.trap.where = trap
        before = network.head.weight.detach().clone()
        stats = train_step(
            network, criterion, [make_batch(1)], task.optimizer, preprocessing=Preprocessing(), scaler=scaler
        )
        assert stats.skipped.item() == 0
        assert torch.equal(before, network.head.weight) == (trap == "gradient")
        assert scaler.get_scale() == 512


def test_fp16_gradients_that_overflow_at_any_scale_stop_the_run(tmp_path: Path) -> None:
    settings = FitSettings(steps=30, log_every=20, precision="fp16")
    task = make_task(settings, network=network_with("gradient"), evaluate=None)
    with pytest.raises(RunError, match="step 20: fp16 gradients overflow at any scale; use precision bf16 or fp32"):
        fit(task, settings, RunFolder(tmp_path))


def test_fp16_resume_equals_an_unbroken_run(tmp_path: Path) -> None:
    settings = FitSettings(steps=6, checkpoint_every=3, precision="fp16")
    networks = []
    for stop in (6, 3):
        task = make_task(settings, make_batches=batches(stop), evaluate=None)
        run = RunFolder(tmp_path / str(stop))
        if stop == 3:
            with pytest.raises(RunError, match="the batches ended"):
                fit(task, settings, run)
            task = make_task(settings, evaluate=None, seed=99)
            fit(task, settings, RunFolder(tmp_path / "3", resume=True), resume=True)
        else:
            fit(task, settings, run)
        networks.append(task.network.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_step_not_finite_on_cuda_is_skipped_on_the_device(optimizer: str) -> None:
    network = network_with("nowhere").cuda()
    task = make_task(FitSettings(steps=4, device="cuda"), optimizer=optimizer, network=network)
    assert task.optimizer.defaults["fused"]
    batch = make_batch(1).to("cuda")
    for trap in ("value", "nowhere", "value"):
        network.backbone.trap.where = trap
        before = [weight.detach().clone() for weight in network.parameters()]
        stats = train_step(network, criterion, [batch], task.optimizer, preprocessing=Preprocessing(), clip_norm=1.0)
        same = [torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
        assert stats.skipped.item() == (trap == "value")
        assert all(same) == (trap == "value")


def test_blamed_names_the_ranks_at_fault_or_all() -> None:
    innocent = "run again with the weights of now, the batch is finite everywhere"
    names = [{3: ("a",), 4: ("b",)}, {3: ("c",), 4: ("d",)}]
    alone = (names[0], "it is bad")
    assert blamed([alone]) == alone
    assert blamed([(names[0], innocent), (names[1], "it is bad")]) == (names[1], "rank 1 of 2: it is bad")
    found, reason = blamed([(one, innocent) for one in names])
    assert found == {3: ("a", "c"), 4: ("b", "d")}
    assert reason == f"rank 0 of 2: {innocent}; rank 1 of 2: {innocent}"
