"""ScoreMap: classes without the full map equal those with it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.inference.score_map import ScoreMap
from perpixel.ops.resize import resize

sides = st.integers(1, 12)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_score_map_classes_any_sizes_equal_plain_argmax(rows, columns, height, width, align_corners, num_classes):
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    logits = torch.randint(-2, 3, (2, num_classes, rows, columns), generator=generator).float()  # ties occur
    score_map = ScoreMap(logits=logits, covered=(height + 3, width), size=(height, width), align_corners=align_corners)
    full = score_map.full()
    chosen = full.gather(1, score_map.classes().long()[:, None])[:, 0]
    assert (full.amax(1) - chosen).max() < 1e-5  # rounding decides between equal ones
    plain = resize(logits, (height + 3, width), align_corners=align_corners)[:, :, :height, :width]
    torch.testing.assert_close(full, plain)


def test_score_map_image_is_one_of_the_batch():
    logits = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    score_map = ScoreMap(logits=logits, covered=(2, 2), size=(2, 2), align_corners=False)
    assert torch.equal(score_map.image(1).full(), logits[1:])


def test_score_map_classes_leave_the_scores_as_they_are():
    logits = torch.tensor([[[[1.0]], [[2.0]]]])
    score_map = ScoreMap(logits=logits, covered=(1, 1), size=(1, 1), align_corners=False)
    assert score_map.classes().tolist() == [[[1]]]
    assert logits.flatten().tolist() == pytest.approx([1.0, 2.0])
