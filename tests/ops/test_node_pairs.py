import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops.node_pairs import IGNORED_PAIR, node_neighbours, node_offsets, pair_targets


def test_node_offsets_surrounding_is_the_box_without_its_middle() -> None:
    around = node_offsets((5, 9), relation="surrounding")  # 0.4 · 5 / 2 = 1
    assert around == ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
    assert len(node_offsets((20, 30), relation="surrounding")) == 9 * 9 - 1


def test_node_offsets_above_are_rows_over_the_node() -> None:
    above = node_offsets((5, 9), relation="above_below")
    assert above == tuple((dy, dx) for dy in (-3, -2, -1) for dx in (-1, 0, 1))


def test_node_offsets_grid_spreads_24_neighbours_over_the_box() -> None:
    around = node_offsets((30, 30), relation="surrounding", grid=5)  # 0.4 · 30 / 2 = 6
    assert len(around) == 24
    assert {dy for dy, _ in around} == {-6, -3, 0, 3, 6}
    assert node_offsets((30, 30), relation="surrounding", grid=1) == ()
    assert len(node_offsets((30, 30), relation="surrounding", grid=99)) == 13 * 13 - 1


def test_node_offsets_steps_off_every_map_are_left_out() -> None:
    assert node_offsets((1, 4), relation="surrounding") == ((0, -1), (0, 1))
    assert node_offsets((1, 4), relation="above_below") == ()


def test_node_neighbours_index_row_by_row_and_know_the_edge() -> None:
    index, valid = node_neighbours((2, 2), ((0, 1), (-1, 0)))
    assert valid.tolist() == [[True, False, True, False], [False, False, True, True]]
    assert index[0, [0, 2]].tolist() == [1, 3]
    assert index[1, [2, 3]].tolist() == [0, 1]
    empty, none = node_neighbours((2, 2), ())
    assert empty.shape == none.shape == (0, 4)


def test_pair_targets_join_both_labels_by_hand() -> None:
    target = torch.tensor([[[0, 1], [2, 255]]])
    pairs = pair_targets(target, 3, ((0, 1), (-1, 0)))
    assert pairs.tolist() == [[[1, IGNORED_PAIR, IGNORED_PAIR, IGNORED_PAIR], [IGNORED_PAIR, IGNORED_PAIR, 6, -1]]]


def test_node_offsets_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidValue, match="surrounding, above_below, got 'left'"):
        node_offsets((4, 4), relation="left")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="got 0 and 0"):
        node_offsets((4, 4), relation="surrounding", fraction=0)
    with pytest.raises(InvalidValue, match=r"got 0\.4 and -1"):
        node_offsets((4, 4), relation="surrounding", grid=-1)
