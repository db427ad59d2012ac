"""Packages of the other side: imported when a comparison needs them, missing with a way out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from perpixel.errors import MissingExtra

__all__ = ["load_package"]

_INSTALLED_BY = {
    "albumentations": "albumentations==2.0.8",
    "cv2": "opencv-python-headless",
    "segmentation_models_pytorch": "segmentation-models-pytorch==0.6.0",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
}


def load_package(name: str) -> Any:
    """Imports a module of a package that perpixel runs without.

    Raises:
        MissingExtra: it is not installed or cannot be imported; says what installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        wanted = _INSTALLED_BY.get(name.partition(".")[0], name)
        raise MissingExtra(
            f"this comparison needs {name}, which cannot be imported ({error}); install it with "
            f"`pip install {wanted}`, or everything that benchmarks compare with by `pip install -e '.[dev]'`"
        ) from error
