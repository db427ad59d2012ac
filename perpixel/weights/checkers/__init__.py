"""The checkers of reference vectors, by the ``kind`` that a vector's manifest states."""

from __future__ import annotations

from collections.abc import Callable

from perpixel.weights.checkers.backbone import check_backbone
from perpixel.weights.checkers.block import check_block
from perpixel.weights.checkers.border_targets import check_border_targets
from perpixel.weights.checkers.dense_crf import check_crf_rnn, check_dense_crf
from perpixel.weights.checkers.evaluators import check_evaluators
from perpixel.weights.checkers.losses import check_losses
from perpixel.weights.checkers.metrics import check_metrics
from perpixel.weights.checkers.network import check_network
from perpixel.weights.checkers.vector import Row, Vector

__all__ = ["CHECKERS"]

CHECKERS: dict[str, Callable[[Vector], list[Row]]] = {
    "backbone": check_backbone,
    "block": check_block,
    "border-targets": check_border_targets,
    "crf-rnn": check_crf_rnn,
    "dense-crf": check_dense_crf,
    "evaluators": check_evaluators,
    "losses": check_losses,
    "metrics": check_metrics,
    "network": check_network,
}
