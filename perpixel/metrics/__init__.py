"""Pure functions from label maps to counts, and from counts to scores."""

from perpixel.metrics.border_errors import border_error_counts
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.scores import ClassScores, Scores, scores, to_json

__all__ = ["ClassScores", "Scores", "border_error_counts", "confusion_matrix", "scores", "to_json"]
