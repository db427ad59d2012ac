"""Types that every room shares: what they refuse, and what they turn into."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing, SegOutput, Term


def test_seg_output_holds_logits_alone_unless_supervised() -> None:
    logits = torch.zeros(1, 2, 3, 3)
    output = SegOutput(logits=logits)
    assert output.logits is logits
    assert (output.deep, output.border, output.presence) == ((), (), ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 and std 3 values"),
        ({"mean": (), "std": ()}, "mean has 0 and std 0 values"),
        ({"std": (1.0, 0.0, 1.0)}, r"std must be positive in every channel, got \(1\.0, 0\.0, 1\.0\)"),
        ({"channel_order": "gbr"}, "channel_order must be 'rgb' or 'bgr', got 'gbr'"),
        ({"pad_value": (0.0,)}, "pad_value has 1 values, the images have 3 channels"),
    ],
)
def test_preprocessing_wrong_field_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Preprocessing(**values)


def test_preprocessing_pads_with_the_mean_unless_told() -> None:
    assert Preprocessing().padding == Preprocessing().mean
    assert Preprocessing(pad_value=(0.0, 0.5, 1.0)).padding == (0.0, 0.5, 1.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.booleans(), st.sampled_from(["rgb", "bgr"]), st.floats(0.1, 255.0))
def test_preprocessing_to_dict_and_from_dict_are_inverse(
    channels: int, padded: bool, order: Any, value_range: float
) -> None:
    preprocessing = Preprocessing(
        mean=tuple(i / 7 for i in range(channels)),
        std=tuple(1 + i / 3 for i in range(channels)),
        channel_order=order,
        value_range=value_range,
        pad_value=(0.25,) * channels if padded else None,
    )
    assert preprocessing.num_channels == channels
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "scores"}, r"term 't': output is one of .*, got 'scores'"),
        ({"at": "image"}, "term 't': at is one of .*, got 'image'"),
        ({"reduction": "mean"}, "term 't': reduction is one of .*, got 'mean'"),
        ({"index": 1}, r"term 't': there is no logits\[1\]"),
        ({"output": "deep", "index": -1}, r"term 't': there is no deep\[-1\]"),
        ({"weight": 0.0}, "term 't': weight must be positive, got 0.0; leave the term out"),
        ({"weight": float("nan")}, "term 't': weight must be positive, got nan"),
    ],
)
def test_term_wrong_field_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Term(name="t", **values)


def test_term_is_frozen_data() -> None:
    term = Term(name="border", output="border", index=3, loss="border_focal", weight=0.1, options={"radius": 2})
    assert (term.at, term.reduction) == ("target", "mean_valid")
    with pytest.raises(FrozenInstanceError):
        term.weight = 1.0  # type: ignore[misc]
