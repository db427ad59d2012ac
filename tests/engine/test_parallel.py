"""What is decided before several processes train a network; that they train it rightly is shown in test_distributed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distributed_work import GroupNormNetwork
from engine_fakes import NUM_CLASSES, TinyNetwork
from torch import nn

from perpixel.engine.distributed import World
from perpixel.engine.parallel import parallelise, probe, stages, synchronise_batch_norm
from perpixel.errors import ConfigError, InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import MODELS, create_model
from perpixel.types import Term

TWO = World(rank=0, size=2)
ON_GPUS = replace(TWO, device=torch.device("cuda", 0))


def loss(*outputs: str) -> SegmentationLoss:
    terms = [Term(name=output, output=output, loss="cross_entropy") for output in outputs]
    return SegmentationLoss(terms, num_classes=NUM_CLASSES, align_corners=False)


def test_parallelise_one_process_is_the_network_itself() -> None:
    network = TinyNetwork()
    parallel = parallelise(network, World())
    assert parallel.forward is network
    assert parallel.delivered() is network


def test_parallelise_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"parallel is one of auto, ddp, fsdp2, got 'fsdp'; did you mean 'fsdp2'"):
        parallelise(TinyNetwork(), TWO, kind="fsdp")


def test_parallelise_fp16_in_slices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"parallel = fsdp2 with precision = fp16 .*; take bf16"):
        parallelise(TinyNetwork(), TWO, kind="fsdp2", precision="fp16")


def test_probe_names_what_no_loss_depends_on_and_leaves_the_network_as_it_was() -> None:
    network = GroupNormNetwork()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    assert probe(network, loss("logits"), channels=3, size=(8, 8)).unused == ("extra.weight", "extra.bias")
    assert probe(network, loss("logits", "deep"), channels=3, size=(8, 8)).unused == ()
    network.extra.requires_grad_(False)
    assert probe(network, loss("logits"), channels=3, size=(8, 8)).unused == ()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["dfn", "pspnet", "unet", "icnet", "hrnet"])
def test_probe_networks_with_their_published_losses_use_every_parameter(name: str) -> None:
    network = create_model(name, MODELS[name].config.small(), num_classes=3)
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=network.align_corners)
    size = network.valid_size(*(max(64, network.minimum_size),) * 2)
    probed = probe(network, criterion, channels=3, size=size)
    assert probed.unused == ()
    units = stages(network, probed)
    assert units
    assert len({id(unit) for unit in units}) == len(units)


def test_stages_only_what_is_called_is_gathered_on_its_own() -> None:
    network = GroupNormNetwork()
    probed = probe(network, loss("logits"), channels=3, size=(8, 8))
    expected = [*network.backbone, network.head, network.extra]
    assert stages(network, probed) == expected
    silent = probed._replace(called=probed.called - {"head"})
    assert stages(network, silent) == [unit for unit in expected if unit is not network.head]


@pytest.mark.parametrize(
    ("world", "batch_size", "trains", "found"),
    [
        (World(), 2, True, None),
        (TWO, 2, False, None),
        (TWO, 2, True, "SyncBatchNorm needs CUDA; batch norm sees 2 images at a time"),
        (ON_GPUS, 16, True, "16 images per process are enough"),
        (ON_GPUS, 2, True, "2 images per process are few"),
    ],
)
def test_synchronise_batch_norm_where_it_pays(world: World, batch_size: int, trains: bool, found: str | None) -> None:
    network = TinyNetwork()
    names = list(network.state_dict())
    said = synchronise_batch_norm(network, world, batch_size=batch_size, trains=trains)
    assert (said is None) == (found is None)
    if said is not None and found is not None:
        assert found in said[1]
    converted = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    assert converted == (world.device.type == "cuda" and batch_size < 16)
    assert list(network.state_dict()) == names


def test_synchronise_batch_norm_without_any_says_nothing() -> None:
    assert synchronise_batch_norm(GroupNormNetwork(), ON_GPUS, batch_size=1, trains=True) is None
