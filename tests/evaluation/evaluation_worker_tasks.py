"""Functions that worker processes import."""

from __future__ import annotations

import os
import sys
import time

from perpixel.errors import DataError


def doubled(task: int) -> int:
    time.sleep(0.02 if task == 0 else 0)  # the first is done last
    sys.stdout.write("prints do not disturb\n")
    return 2 * task


def refusing(task: int) -> int:
    raise DataError(f"task {task} is refused")


def dying(task: int) -> int:
    os._exit(3)
