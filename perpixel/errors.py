"""Errors that a caller can make, and the warning for what perpixel decided on its own.

Every message holds the bad value, the place (file, key or pixel) and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InvalidValue",
    "MissingExtra",
    "PerpixelError",
    "PerpixelWarning",
    "RunError",
    "nearest",
]


class PerpixelError(Exception):
    """Base of every error that is the caller's to mend; the command line prints it without a traceback."""


class InvalidValue(PerpixelError, ValueError):
    """An argument is outside what the function accepts."""


class ConfigError(PerpixelError):
    """A configuration file or override does not describe a run."""


class DataError(PerpixelError):
    """An image, a mask or a data set cannot be used as it is."""


class CheckpointError(PerpixelError):
    """Weights or a saved state cannot be read, or do not fit the network."""


class RunError(PerpixelError):
    """A run cannot start or go on: folder in the way, disk full, training diverged."""


class MissingExtra(PerpixelError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


class PerpixelWarning(UserWarning):
    """Something was decided or adapted for the caller and should be seen."""


def nearest(name: str, known: Iterable[str], *, end: str = "") -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest known name, or ``end`` when none is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else end
