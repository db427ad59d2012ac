"""fused_argmax: classes, top scores and confidences equal those of the full map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.errors import InvalidValue
from perpixel.ops import fused_argmax as fused
from perpixel.ops.fused_argmax import Axis, fused_argmax, fused_top, mixed_classes, mixed_top

NEAR = 1e-5


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patches(batch, num_classes, height, width, seed=0):
    """Scores with one winner over wide areas, as those of trained networks."""
    coarse = noise(batch, num_classes, max(1, height // 4), max(1, width // 4), seed=seed)
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def full_map(logits, size, align_corners):
    """In float64: PyTorch's own float32 places pixels to a few units in the seventh digit."""
    return F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)


def assert_same_classes(classes, full):
    """The class is the largest of the full map; where another is, the two nearly tie."""
    wanted = full.argmax(1)
    wrong = classes.long() != wanted
    chosen = full.gather(1, classes.long()[:, None])[:, 0]
    assert (full.amax(1) - chosen)[wrong].le(NEAR).all()
    assert wrong.float().mean() < 1e-3


SIZES = [
    ((2, 3, 7, 9), (50, 61)),
    ((1, 5, 16, 16), (128, 128)),
    ((1, 4, 13, 11), (100, 37)),
    ((2, 3, 1, 7), (9, 30)),
    ((1, 3, 9, 1), (9, 31)),
    ((1, 6, 8, 8), (8, 8)),
    ((1, 6, 8, 8), (8, 20)),
    ((1, 4, 30, 40), (17, 13)),
    ((1, 1, 3, 3), (7, 7)),
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("scores", [noise, patches])
def test_fused_argmax_equals_argmax_of_the_full_map(shape, size, align_corners, scores):
    logits = scores(*shape)
    full = full_map(logits, size, align_corners)
    classes = fused_argmax(logits, size, align_corners=align_corners)
    assert classes.dtype == torch.uint8
    assert_same_classes(classes, full)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_fused_top_equals_score_and_softmax_of_the_full_map(shape, size, align_corners):
    logits = 3 * noise(*shape)
    full = full_map(logits, size, align_corners)
    top = fused_top(logits, size, align_corners=align_corners)
    assert_same_classes(top.classes, full)
    torch.testing.assert_close(top.score.double(), full.amax(1), rtol=0, atol=NEAR)
    torch.testing.assert_close(top.confidence.double(), full.softmax(1).amax(1), rtol=0, atol=NEAR)


sides = st.integers(1, 12)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_fused_argmax_of_whole_numbers_takes_one_of_the_best(rows, columns, height, width, aligned, num_classes):
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    logits = torch.randint(-2, 3, (1, num_classes, rows, columns), generator=generator).float()
    full = full_map(logits, (height, width), aligned)
    classes = fused_argmax(logits, (height, width), align_corners=aligned).long()
    chosen = full.gather(1, classes[:, None])[:, 0]
    assert (full.amax(1) - chosen).max() < NEAR


@pytest.mark.parametrize("scores", [noise, patches])
@pytest.mark.parametrize("size", [(12, 12), (90, 77)])
def test_fused_argmax_of_equal_scores_takes_the_lowest_class(scores, size):
    logits = scores(1, 4, 12, 12)
    twice = torch.cat([logits, logits, logits[:, :2]], dim=1)
    single = fused_argmax(logits, size, align_corners=False)
    assert torch.equal(fused_argmax(twice, size, align_corners=False), single)
    assert torch.equal(fused_top(twice, size, align_corners=False).classes, single)
    assert not fused_argmax(torch.zeros_like(logits), size, align_corners=False).any()


def test_fused_argmax_by_hand_places_the_border_between_cells():
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # class 0 left, class 1 right
    assert fused_argmax(logits, (1, 8), align_corners=False).tolist() == [[[0, 0, 0, 0, 1, 1, 1, 1]]]
    aligned = fused_top(logits, (1, 3), align_corners=True)
    assert aligned.classes.tolist() == [[[0, 0, 1]]]
    assert aligned.score[0, 0].tolist() == pytest.approx([1, 0.5, 1])
    assert aligned.confidence[0, 0].tolist() == pytest.approx([0.731059, 0.5, 0.731059], abs=1e-6)


def test_fused_argmax_covered_is_the_top_left_of_the_larger_result():
    logits = noise(1, 4, 5, 6)
    larger = fused_argmax(logits, (40, 48), align_corners=False)
    part = fused_argmax(logits, (33, 41), align_corners=False, covered=(40, 48))
    assert torch.equal(part, larger[:, :33, :41])


@pytest.mark.parametrize("scores", [noise, patches])
def test_fused_argmax_windows_equal_the_whole_to_the_last_pixel(scores):
    logits = scores(1, 5, 20, 24)
    rows = Axis.between(20, 157, align_corners=False)
    columns = Axis.between(24, 190, align_corners=False)
    whole = fused_top(logits, (157, 190), align_corners=False)
    first_row, first_column = 4, 6
    placed = (
        rows.window(60, 120, first_cell=first_row),
        columns.window(70, 150, first_cell=first_column),
    )
    tile = logits[:, :, first_row:17, first_column:22]
    assert torch.equal(mixed_classes(tile, *placed), whole.classes[:, 60:120, 70:150])
    assert torch.equal(mixed_top(tile, *placed).score, whole.score[:, 60:120, 70:150])


def test_fused_argmax_cells_and_classes_agree(monkeypatch):
    logits = patches(1, 7, 24, 24)
    by_cells = fused_argmax(logits, (200, 180), align_corners=True)
    monkeypatch.setattr(fused, "_MOST_MIXED", -1.0)
    assert torch.equal(by_cells, fused_argmax(logits, (200, 180), align_corners=True))


def test_fused_argmax_many_classes_are_int16():
    logits = noise(1, 300, 3, 3)
    classes = fused_argmax(logits, (11, 11), align_corners=False)
    assert classes.dtype == torch.int16
    assert_same_classes(classes, full_map(logits, (11, 11), False))
    assert int(classes.max()) > 255


def test_fused_argmax_half_precision_is_computed_in_float32():
    logits = noise(1, 3, 6, 6).half()
    classes = fused_argmax(logits, (50, 50), align_corners=False)
    assert_same_classes(classes, full_map(logits.float(), (50, 50), False))


def test_axis_weights_are_exact_fractions():
    axis = Axis.between(3, 9, align_corners=False)  # pixel centres (y + 1/2) / 3 - 1/2
    assert axis.low.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert axis.weight.tolist() == [0, 0, 1 / 3, 2 / 3, 0, 1 / 3, 2 / 3, 0, 0]
    aligned = Axis.between(3, 5, align_corners=True)
    assert aligned.low.tolist() == [0, 0, 1, 1, 2]
    assert aligned.weight.tolist() == [0, 0.5, 0, 0.5, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_fused_argmax_non_finite_scores_are_refused_with_the_place(bad):
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 1, 2, 3] = bad
    for size in ((9, 9), (3, 4)):
        with pytest.raises(InvalidValue, match=r"\(0, 1, 2, 3\) are (nan|inf)"):
            fused_argmax(logits, size, align_corners=False)
    with pytest.raises(InvalidValue, match="only finite scores"):
        fused_top(logits, (9, 9), align_corners=False)


def test_fused_argmax_wrong_shapes_are_refused():
    with pytest.raises(InvalidValue, match=r"floating point \(B, K, h, w\)"):
        fused_argmax(torch.zeros(2, 3, 3), (9, 9), align_corners=False)
    with pytest.raises(InvalidValue, match="floating point"):
        fused_argmax(torch.zeros(1, 2, 3, 3, dtype=torch.long), (9, 9), align_corners=False)
    with pytest.raises(InvalidValue, match="must lie within"):
        fused_argmax(torch.zeros(1, 2, 3, 3), (9, 9), align_corners=False, covered=(8, 9))
    with pytest.raises(InvalidValue, match="must lie within"):
        fused_argmax(torch.zeros(1, 2, 3, 3), (0, 9), align_corners=False)


def test_mixed_classes_axes_beyond_the_scores_are_refused():
    axis = Axis.between(4, 16, align_corners=False)
    with pytest.raises(InvalidValue, match="rows read the cells 0 to 3, and the scores have 3"):
        mixed_classes(torch.zeros(1, 2, 3, 4), axis, axis)
    with pytest.raises(InvalidValue, match="floating point"):
        mixed_top(torch.zeros(2, 3, 4), axis, axis)
    with pytest.raises(InvalidValue, match="at least one cell"):
        Axis.between(0, 4, align_corners=False)


def test_fused_argmax_more_classes_than_int16_holds_are_refused():
    with pytest.raises(InvalidValue, match="at most 32768 classes can be told apart, got scores of 32769"):
        fused_argmax(torch.zeros(1, 32769, 1, 1), (2, 2), align_corners=False)
    with pytest.raises(InvalidValue, match="at most 32768 classes"):
        mixed_classes(torch.zeros(1, 32769, 1, 1), *[Axis.between(1, 2, align_corners=False)] * 2)
    last = torch.zeros(1, 32768, 1, 1)
    last[0, 32767] = 1
    assert (fused_argmax(last, (2, 3), align_corners=False) == 32767).all()


@pytest.mark.parametrize("size", [(4,), (4, 4, 4), (4.0, 4)])
def test_fused_argmax_sizes_that_are_no_pair_of_whole_numbers_are_refused(size):
    with pytest.raises(InvalidValue, match=r"sizes are .height, width. in whole pixels"):
        fused_argmax(torch.zeros(1, 2, 3, 3), size, align_corners=False)


def test_axis_within_reads_the_nearest_cell():
    axis = Axis.between(4, 8, align_corners=False).window(1, 7, first_cell=1)
    assert axis.low.tolist() == [-1, -1, 0, 0, 1, 1]
    inside = axis.within(2)
    assert inside.low.tolist() == [0, 0, 0, 0, 1, 1]
    assert inside.high.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_argmax_where_cells_are_pixels_takes_the_first_of_the_best(dtype: torch.dtype) -> None:
    logits = torch.randint(-2, 3, (2, 5, 6, 7)).to(dtype).contiguous(memory_format=torch.channels_last)
    expected = logits.max(1, keepdim=True).values.eq(logits).to(torch.uint8).argmax(1).to(torch.uint8)
    assert torch.equal(fused_argmax(logits, (6, 7), align_corners=False), expected)
    assert torch.equal(fused_argmax(logits, (4, 5), align_corners=True, covered=(6, 7)), expected[:, :4, :5])
