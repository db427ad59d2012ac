"""What is measured besides the IoU family, as text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from cli_fakes import SCORES
from rich.console import Console

from perpixel.cli.score_table import print_scores

TEST = {
    "words": "+0.40 points of mean IoU is within what chance does.",
    "beyond_chance": False,
}


def printed(extra: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False, markup=False)
    print_scores(console, {**SCORES, **extra})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("extra", "lines"),
    [
        ({"intervals": {"mean_iou": [0.48, 0.52]}}, ["mean IoU 50.00 % (48.00 to 52.00) over 2 of 3 classes"]),
        ({"intervals": {"mean_iou": [None, None]}}, ["mean IoU 50.00 % over 2 of 3 classes"]),
        (
            {"boundary": {"bf_score": 0.5, "boundary_iou": None, "per_class": [
                {"name": "car", "bf_score": 0.5, "boundary_iou": None}], "trimap_iou": {"1": 0.25, "3": 0.5}}},
            ["car    50.00               –", "BF score 50.00 %, mean of images over the classes in their truth",
             "Boundary IoU – %, mean over classes", "mean IoU near true borders: 1 px 25.00 %, 3 px 50.00 %"],
        ),
        ({"region_sizes": {"bins": [{"name": "small", "recall": 0.1}, {"name": "large", "recall": None}]}},
         ["recall of true regions by size: small 10.00 %, large – %"]),
        ({"calibration": {"ece": 0.031}}, ["expected calibration error 3.10 %"]),
        ({"neuron_segmentation": {"v_rand": 0.9, "v_info": 0.8}}, ["V_Rand 90.00 %, V_Info 80.00 %"]),
        ({"cityscapes": {"average_iou": 0.5, "average_iiou": None, "average_category_iou": 0.6,
                         "average_category_iiou": 0.7}},
         ["Cityscapes: IoU 50.00 %, iIoU – %, category IoU 60.00 %, category iIoU 70.00 %"]),
        ({"per_image": [{"name": "a", "mean_iou": 0.5}, {"name": "b", "mean_iou": None},
                        {"name": "c", "mean_iou": 0.25}]},
         ["lowest mean IoU of an image: c 25.00 %, a 50.00 %"]),
        ({"notes": ["palettes differ"]}, ["note: palettes differ"]),
        (
            {"comparison": {"against": "q", "tests": [TEST], "notes": ["q: 2 passed over"], "left_out": ["z"],
              "images": [
                {"name": "a", "change": 0.1}, {"name": "b", "change": -0.2}],
                "per_class": [{"name": "car", "iou_difference": 0.1, "interval": [-0.1, 0.3]},
                              {"name": "sky", "iou_difference": None, "interval": [None, None]}]}},
            ["compared with q", TEST["words"], "car             10.00  -10.00 to 30.00", "gains most on a (10.00)",
             "loses most on b (-20.00)", "1 images could be scored on one side only and are left out",
             "note: q: 2 passed over"],
        ),
    ],
)  # fmt: skip
def test_print_scores_shows_what_was_measured(extra: dict[str, Any], lines: list[str]) -> None:
    shown = [line.rstrip() for line in printed(extra).splitlines()]
    for line in lines:
        assert line in shown


def test_print_scores_without_an_image_that_has_a_score_names_none() -> None:
    assert "lowest mean IoU" not in printed({"per_image": [{"name": "void", "mean_iou": None}]})
