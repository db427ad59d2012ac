"""Fetching pretrained weights through timm: what happens without a network, in words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants as hub

from perpixel.errors import CheckpointError

__all__ = ["cannot_fetch", "hub_unless_unreachable"]


@contextmanager
def hub_unless_unreachable() -> Iterator[None]:
    """Without a name server the hub's client retries for most of a minute; its offline mode fails at once instead."""
    before = hub.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def cannot_fetch(name: str, error: BaseException) -> CheckpointError:
    """Returns the error that says why a backbone's pretrained weights are not to be had, and what to do instead."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"cannot get the pretrained weights of {name!r} ({reason}). Offline: fetch the file on "
        "another machine (https://huggingface.co/timm) and give its path as model.backbone.weights=FILE; or "
        "train from scratch with model.backbone.weights=none."
    )
