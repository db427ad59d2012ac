"""Activation checkpointing: what a backbone computes inside its stages is thrown away and computed again in backward.

Between the passes only the maps between stages are kept; the price is the backbone's forward pass once more. Gradients
are the same, bit for bit on the CPU: dropout draws the same numbers again, and the running statistics of batch norm
are those of the first pass alone.

A stage is the outermost module below the trunk that is called as a whole and holds several convolutions; where a trunk
walks through a list of blocks itself, each block is one. A trunk that computes in methods names them in
``recomputed_methods``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["recompute_backbone"]

_LEAST_CONVOLUTIONS = 2
"""A single convolution with its norm would be computed again to save one map."""
_INSIDE: ContextVar[bool] = ContextVar("inside a recomputed stage", default=False)


def recompute_backbone(network: nn.Module) -> tuple[str, ...]:
    """Makes the stages of ``network.backbone``, or of a network of one piece, forget what they compute inside.

    Calls without gradients, and modules in evaluation mode, run as ever. Names of parameters and buffers stay, and so
    do state and artifacts. Doing it twice changes nothing.

    Args:
        network: Changed in place.

    Returns:
        The names of what may be recomputed as a whole; empty where there is nothing.
    """
    backbone = getattr(network, "backbone", None)
    root = network if backbone is None else backbone
    names = []
    for name, module, method in _stages("" if backbone is None else "backbone", root):
        if not isinstance(getattr(module, method), _Recomputed):
            setattr(module, method, _Recomputed(module, method))
        names.append(name)
    return tuple(names)


class _Recomputed:
    """Stands in place of a module's method, as an attribute of the instance."""

    def __init__(self, module: nn.Module, method: str) -> None:
        self.module, self.method = module, method

    def __call__(self, *args: Any) -> Any:
        plain = functools.partial(getattr(type(self.module), self.method), self.module)
        if _INSIDE.get() or not (self.module.training and torch.is_grad_enabled()):
            return plain(*args)

        def run(*values: Any) -> Any:  # also in the backward pass, which may have a thread of its own
            token = _INSIDE.set(True)
            try:
                return plain(*values)
            finally:
                _INSIDE.reset(token)

        norms = [part for part in self.module.modules() if isinstance(part, _BatchNorm)]

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), _statistics_kept(norms)

        return checkpoint(run, *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norms gather their running statistics in copies, which are forgotten."""
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms if norm.training]
    try:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def _stages(name: str, root: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yields name, module and method of all that a trunk, or a part of it, may call as a whole."""
    methods: tuple[str, ...] = getattr(root, "recomputed_methods", ())
    for method in methods:
        yield f"{name}.{method}", root, method
    for key, child in root.named_children() if not methods else ():
        path = f"{name}.{key}" if name else key
        is_trunk = hasattr(child, "feature_info") or hasattr(child, "strides")
        convolutions = sum(isinstance(part, nn.Conv2d) for part in child.modules())
        if (
            convolutions >= _LEAST_CONVOLUTIONS
            and not is_trunk
            and not isinstance(child, nn.ModuleList | nn.ModuleDict)
        ):
            yield path, child, "forward"
        yield from _stages(path, child)
