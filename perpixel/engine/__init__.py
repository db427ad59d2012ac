"""Training: the loop of one stage, and everything that keeps a run from being lost."""

from perpixel.engine.fit import FitResult, FitSettings, FitTask, Progress, fit
from perpixel.engine.groups import freeze_batch_norm, parameter_groups
from perpixel.engine.optimizers import create_optimizer
from perpixel.engine.precision import PrecisionChoice, autocast, choose_precision
from perpixel.engine.randomness import seed_all
from perpixel.engine.run_folder import RunFolder
from perpixel.engine.schedules import Schedule, ScheduleOptions, create_schedule
from perpixel.engine.tracking import TensorBoardTracker

__all__ = [
    "FitResult",
    "FitSettings",
    "FitTask",
    "PrecisionChoice",
    "Progress",
    "RunFolder",
    "Schedule",
    "ScheduleOptions",
    "TensorBoardTracker",
    "autocast",
    "choose_precision",
    "create_optimizer",
    "create_schedule",
    "fit",
    "freeze_batch_norm",
    "parameter_groups",
    "seed_all",
]
