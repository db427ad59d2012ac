"""Recipes of LRR, Zoom-out, DPN and Adelaide: published numbers, and stages that fit the networks they build on."""

from __future__ import annotations

import pytest
import torch

from perpixel.build.networks import build_criterion, build_optimizer
from perpixel.config import ModelChoice
from perpixel.models import create_model
from perpixel.recipes import get_recipe

TINY = {"width": 2, "fc_width": 4}


@pytest.mark.parametrize("name", ["lrr_voc", "zoomout_voc", "dpn_voc", "adelaide_voc"])
def test_recipe_stages_build_networks_optimisers_and_losses(name: str) -> None:
    config = get_recipe(name)
    names: set[str] = set()
    for index, stage in enumerate(config.stages):
        model: ModelChoice = config.model_of(index)
        network = create_model(model.name, {**model.options, **TINY}, num_classes=3)
        own = {key for key, _ in network.named_parameters()}
        assert names <= own  # what an earlier stage trained has its place
        names = own
        optimizer = build_optimizer(stage, network)
        assert sum(len(group["params"]) for group in optimizer.param_groups) > 0
        build_criterion(stage, network, None)


def test_recipe_lrr_has_the_numbers_of_the_published_code() -> None:
    config = get_recipe("lrr_voc")
    first, second = config.stages
    assert (config.data.crop_size, config.data.batch_size) == ((384, 384), 20)
    assert (first.steps, second.steps) == (65 * 529, 16 * 529)
    assert (first.optimizer.lr, second.optimizer.lr) == (1e-3, 1e-3 / 16)
    assert first.schedule.milestones == (51 * 529, 61 * 529) and first.schedule.gamma == 0.5
    network = create_model("lrr", TINY, num_classes=2)
    rates = {group["name"]: group["lr_factor"] for group in build_optimizer(second, network).param_groups}
    assert rates[r"^levels\.3\..*weight$"] == pytest.approx(0.1 / 512)
    assert rates[r"^levels\.1\..*bias$, weight decay 0"] == pytest.approx(0.1)


def test_recipe_zoomout_trains_the_classifier_alone() -> None:
    stage = get_recipe("zoomout_voc").stages[0]
    network = create_model("zoomout", TINY, num_classes=2)
    build_optimizer(stage, network)
    trained = {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"hidden", "classifier"}
    assert stage.class_weights == "median_frequency"


def test_recipe_dpn_trains_each_new_part_alone_and_then_all() -> None:
    config = get_recipe("dpn_voc")
    trained = []
    for stage in config.stages:
        assert stage.model is not None
        network = create_model("dpn", {**stage.model.options, **TINY}, num_classes=2)
        build_optimizer(stage, network)
        trained.append({name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad})
    assert trained == [
        {"backbone", "classifier"},
        {"triple"},
        {"contexts"},
        {"backbone", "classifier", "triple", "contexts"},
    ]
    assert [stage.start for stage in config.stages] == ["scratch", "previous", "previous", "previous"]


def test_recipe_adelaide_adds_the_edges_in_its_second_stage() -> None:
    first, second = get_recipe("adelaide_voc").stages
    terms = []
    for stage in (first, second):
        assert stage.model is not None
        network = create_model("adelaide", {**stage.model.options, **TINY}, num_classes=2)
        terms.append([term.name for term in network.default_terms()])
        assert torch.is_tensor(next(network.parameters()))
    assert terms == [["unary"], ["unary", "surrounding", "above_below"]]
