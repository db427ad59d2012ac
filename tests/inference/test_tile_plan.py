"""Tile plans: their spans cover each pixel once, their margins protect, and they stay within the memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.errors import InvalidValue
from perpixel.inference.tile_cost import TileCost
from perpixel.inference.tile_plan import given_size, plan_tiles, tile_spans


@dataclass
class Contract:
    """The part of a network that a plan reads."""

    receptive_field: int | None = None
    logit_stride: int = 8
    margin: int = 0
    minimum_size: int = 16
    multiple: int = 1
    rest: int = 0

    def valid_size(self, height, width):
        return tuple(side + (self.rest - side) % self.multiple for side in (height, width))


COST = TileCost(fixed_bytes=1e6, bytes_per_pixel=1000, period=32)


@given(st.integers(1, 900), st.integers(0, 6), st.integers(1, 5), st.sampled_from([1, 8, 32]), st.integers(0, 40))
@settings(max_examples=120, deadline=None)
def test_tile_spans_cover_every_pixel_once_and_keep_their_margins(length, margins, kept, period, beyond):
    margin = margins * period
    tile = 2 * margin + kept * period + beyond
    spans = tile_spans(length, tile, margin=margin, period=period)
    assert spans[0].keep_start == 0
    assert spans[-1].keep_stop == length
    for before, after in pairwise(spans):
        assert before.keep_stop == after.keep_start
        assert before.stop - before.keep_stop >= margin or before.stop == length
        assert after.keep_start - after.start >= margin
    for span in spans:
        assert span.start % period == 0
        assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= length
        assert span.stop - span.start <= tile


def test_tile_spans_by_hand():
    spans = tile_spans(100, 40, margin=8, period=8)
    assert [(s.start, s.stop, s.keep_start, s.keep_stop) for s in spans] == [
        (0, 40, 0, 32),
        (24, 64, 32, 56),
        (48, 88, 56, 72),
        (64, 100, 72, 100),
    ]


def test_tile_spans_that_keep_nothing_are_refused():
    with pytest.raises(InvalidValue, match="keeps less than a period of 8"):
        tile_spans(100, 20, margin=8, period=8)


def test_plan_tiles_small_image_is_one_piece():
    plan = plan_tiles(Contract(), (100, 90), memory_bytes=10**9, cost=COST)
    assert (plan.tiles, plan.tile_size, plan.margin, plan.exact) == (1, (100, 90), 0, True)
    assert "in one piece" in plan.text()
    assert plan.estimated_bytes == COST.bytes_of(9000) + 64 * 9000


@pytest.mark.parametrize("memory", [20e6, 60e6, 200e6])
def test_plan_tiles_stay_within_the_memory_and_use_it(memory):
    plan = plan_tiles(Contract(), (3000, 5000), memory_bytes=int(memory), cost=COST)
    assert plan.tiles > 1
    assert memory / 2 < plan.estimated_bytes <= memory
    assert plan.margin % 32 == 0
    assert plan.tile_size[0] == plan.tile_size[1]


def test_plan_tiles_narrow_image_is_cut_along_its_length_alone():
    plan = plan_tiles(Contract(), (60, 50_000), memory_bytes=200_000_000, cost=COST)
    assert len(plan.rows) == 1
    assert plan.tile_size[0] == 60
    assert plan.tile_size[1] > 1000


def test_plan_tiles_finite_field_is_exact_where_the_margin_fits():
    network = Contract(receptive_field=100)
    plan = plan_tiles(network, (3000, 3000), memory_bytes=900_000_000, cost=COST)
    assert plan.exact
    assert plan.margin >= 50 + network.logit_stride
    assert "receptive field of 100 pixels" in plan.text()


def test_plan_tiles_finite_field_says_what_memory_would_make_it_exact():
    network = Contract(receptive_field=700)
    plan = plan_tiles(network, (3000, 3000), memory_bytes=100_000_000, cost=COST)
    assert not plan.exact
    wanted = int(plan.text().split("--memory ")[1].split("MB")[0])
    enough = plan_tiles(network, (3000, 3000), memory_bytes=wanted * 10**6, cost=COST)
    assert enough.exact


def test_plan_tiles_global_pooling_is_never_exact_and_says_so():
    plan = plan_tiles(Contract(), (3000, 3000), memory_bytes=100_000_000, cost=COST)
    assert not plan.exact
    assert "states no receptive field" in plan.text()


def test_plan_tiles_without_period_is_not_exact():
    cost = TileCost(fixed_bytes=0, bytes_per_pixel=1000, period=None)
    plan = plan_tiles(Contract(receptive_field=20), (900, 900), memory_bytes=100_000_000, cost=cost)
    assert not plan.exact
    assert "follow no period" in plan.reason


def test_plan_tiles_sizes_are_those_that_the_network_takes():
    network = Contract(multiple=8, rest=1)
    plan = plan_tiles(network, (1000, 1000), memory_bytes=60_000_000, cost=COST)
    assert plan.tile_size[0] % 8 == 1
    assert given_size(network, plan.tile_size) == plan.tile_size


def test_plan_tiles_too_little_memory_says_the_least_that_works():
    with pytest.raises(InvalidValue, match="too little for one window") as raised:
        plan_tiles(Contract(), (3000, 3000), memory_bytes=5_000_000, cost=COST)
    least = int(str(raised.value).split("--memory ")[1].split("MB")[0])
    assert plan_tiles(Contract(), (3000, 3000), memory_bytes=least * 10**6, cost=COST).tiles > 1
    with pytest.raises(InvalidValue, match="too little"):
        plan_tiles(Contract(), (3000, 3000), memory_bytes=(least - 1) * 10**6, cost=COST)


def test_plan_tiles_batches_where_memory_allows():
    plan = plan_tiles(Contract(), (2000, 2000), memory_bytes=500_000_000, cost=COST, tile=(256, 256), max_batch=4)
    assert plan.batch == 4
    assert plan.estimated_bytes == COST.bytes_of(4 * 256 * 256)
    assert "4 at a time" in plan.text()


def test_plan_tiles_disagreement_takes_the_claim_back():
    plan = plan_tiles(Contract(receptive_field=50), (2000, 2000), memory_bytes=500_000_000, cost=COST)
    assert plan.exact
    assert plan.measured(0.0).exact
    assert "none of the compared pixels" in plan.measured(0.0).text()
    wrong = plan.measured(0.02)
    assert not wrong.exact
    assert "2.000%" in wrong.text()
    assert "depend on the tile's size" in wrong.text()
    assert plan.measured(None).disagreement is None


def test_plan_tiles_bad_arguments_are_refused():
    network = Contract()
    with pytest.raises(InvalidValue, match="does not lie within the image of 50 x 60"):
        plan_tiles(network, (50, 60), memory_bytes=10**9, cost=COST, tile=(51, 60))
    with pytest.raises(InvalidValue, match="at least one pixel"):
        plan_tiles(network, (0, 60), memory_bytes=10**9, cost=COST)
    with pytest.raises(InvalidValue, match="0 or more, got -1"):
        plan_tiles(network, (50, 60), memory_bytes=10**9, cost=COST, margin=-1)
    with pytest.raises(InvalidValue, match="max_batch must be >= 1"):
        plan_tiles(network, (50, 60), memory_bytes=10**9, cost=COST, max_batch=0)
    with pytest.raises(InvalidValue, match="need at least 160 pixels"):
        plan_tiles(network, (500, 600), memory_bytes=10**9, cost=COST, tile=(100, 100), margin=64)
    with pytest.raises(InvalidValue, match="a tile of 1000 x 1000 pixels takes about"):
        plan_tiles(network, (2000, 2000), memory_bytes=10**8, cost=COST, tile=(1000, 1000))
