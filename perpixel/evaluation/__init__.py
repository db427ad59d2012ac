"""Scores a network on a data set, or saved masks against targets; compares two sets of predictions.

The names below load what they need on first use: worker processes that count saved masks need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perpixel.lazy_names import lazy_names

if TYPE_CHECKING:
    from perpixel.evaluation.compare import Comparison, ImageChange, compare_evaluations
    from perpixel.evaluation.evaluate import evaluate_network
    from perpixel.evaluation.measures import ImageScore, Measures
    from perpixel.evaluation.saved_masks import evaluate_masks
    from perpixel.evaluation.totals import Evaluation, Totals

__all__ = [
    "Comparison",
    "Evaluation",
    "ImageChange",
    "ImageScore",
    "Measures",
    "Totals",
    "compare_evaluations",
    "evaluate_masks",
    "evaluate_network",
]

_HOME = {
    "Comparison": "compare",
    "ImageChange": "compare",
    "compare_evaluations": "compare",
    "Evaluation": "totals",
    "ImageScore": "measures",
    "Measures": "measures",
    "Totals": "totals",
    "evaluate_masks": "saved_masks",
    "evaluate_network": "evaluate",
}

__getattr__ = lazy_names(__name__, _HOME, globals())
