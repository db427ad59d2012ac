"""The processes that score saved masks: those of `perpixel.data.worker_pool`, under the name of this room."""

from __future__ import annotations

from perpixel.data.worker_pool import available_cores, map_in_processes

__all__ = ["available_cores", "map_in_processes"]
