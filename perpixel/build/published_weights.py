"""Whether a backbone's published weights are on this machine already, found out without fetching anything."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import timm
import torch
from huggingface_hub import try_to_load_from_cache

__all__ = ["Published", "published_weights"]

Published = Literal["here", "to fetch", "unreachable", "unknown"]
_FILES = ("model.safetensors", "pytorch_model.bin")


def published_weights(name: str) -> Published:
    """Returns where timm's weights of a trunk are: in a cache, to be fetched, or beyond a network that does not answer.

    Args:
        name: A trunk; ``"unknown"`` comes back for those that timm has under another name.
    """
    if not timm.is_model(name):
        return "unknown"
    found = timm.get_pretrained_cfg(name)
    hub, url = getattr(found, "hf_hub_id", None), getattr(found, "url", None)
    if hub and any(isinstance(try_to_load_from_cache(hub, file), str) for file in _FILES):
        return "here"
    if url and (Path(torch.hub.get_dir()) / "checkpoints" / str(url).rpartition("/")[2]).is_file():
        return "here"
    try:
        socket.getaddrinfo("huggingface.co", 443)
    except OSError:
        return "unreachable"
    return "to fetch"
