"""Scores a network on a data set, or saved masks against targets."""

from perpixel.evaluation.evaluate import Evaluation, ImageScore, evaluate_network
from perpixel.evaluation.saved_masks import evaluate_masks

__all__ = ["Evaluation", "ImageScore", "evaluate_masks", "evaluate_network"]
