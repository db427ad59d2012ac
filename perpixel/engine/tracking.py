"""TensorBoard curves from a run's events (extra ``track``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perpixel.errors import MissingExtra

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker:
    """A listener for ``RunFolder``: writes the numbers of train and evaluation events as scalars.

    Args:
        folder: Where the event files go, such as ``run.path / "tensorboard"``.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("curves for TensorBoard need tensorboard: pip install 'perpixel[track]'") from error
        self._writer = SummaryWriter(str(folder))

    def __call__(self, event: dict[str, Any]) -> None:
        """Writes one event; other kinds than train and evaluation are left out."""
        if event.get("event") not in ("train", "evaluation"):
            return
        prefix = f"{event.get('stage', 'main')}/{event['event']}"
        scalars = dict(event.get("values", {}))
        if "lr" in event:
            scalars["lr"] = event["lr"]
        for name, value in scalars.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(f"{prefix}/{name}", value, event["step"])

    def close(self) -> None:
        """Writes what is still in memory."""
        self._writer.close()
