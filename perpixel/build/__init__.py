"""Config → objects: the one place where names become networks, losses, data and optimisers, and where runs are run."""

from perpixel.build.checks import check_names
from perpixel.build.crf_search import search_crf
from perpixel.build.data_stats import data_statistics
from perpixel.build.demo import demo
from perpixel.build.mask_scoring import choose_measures, evaluate_predictions
from perpixel.build.plan import Plan, config_for_data, plan_for_data
from perpixel.build.preflight import preflight
from perpixel.build.preflight_report import CheckResult, PreflightReport
from perpixel.build.progress import Progress
from perpixel.build.scoring import evaluate, load, predict
from perpixel.build.training import RunResult, train

__all__ = [
    "CheckResult",
    "Plan",
    "PreflightReport",
    "Progress",
    "RunResult",
    "check_names",
    "choose_measures",
    "config_for_data",
    "data_statistics",
    "demo",
    "evaluate",
    "evaluate_predictions",
    "load",
    "plan_for_data",
    "predict",
    "preflight",
    "search_crf",
    "train",
]
