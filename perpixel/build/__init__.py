"""Config → objects: the one place where names become networks, losses, data and optimisers, and where runs are run."""

from perpixel.build.checks import check_names
from perpixel.build.demo import demo
from perpixel.build.plan import config_for_data
from perpixel.build.progress import Progress
from perpixel.build.scoring import evaluate, evaluate_predictions, load, predict
from perpixel.build.training import RunResult, train

__all__ = [
    "Progress",
    "RunResult",
    "check_names",
    "config_for_data",
    "demo",
    "evaluate",
    "evaluate_predictions",
    "load",
    "predict",
    "train",
]
