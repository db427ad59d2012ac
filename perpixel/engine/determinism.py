"""Deterministic mode: only operations whose result does not depend on timing, on the CPU and on CUDA.

PyTorch refuses what it cannot do deterministically on CUDA in the middle of a step. Our networks and losses hold none
of that: bilinear resizing and adaptive pooling (`ops.resize`), unpooling (`ops.unpool`) and the fused losses have forms
of their own there. Trunks of other libraries are looked through before training (`nondeterministic_layers`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from perpixel.errors import RunError

__all__ = ["check_deterministic", "deterministic_errors", "deterministic_mode", "nondeterministic_layers"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
"""The two settings with which cuBLAS says that its products do not depend on timing."""
_LINEAR_MODES = ("linear", "bilinear", "bicubic", "trilinear")
_REFUSED = (
    nn.AvgPool3d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.MaxUnpool1d,
    nn.MaxUnpool2d,
    nn.MaxUnpool3d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
    nn.CTCLoss,
    nn.NLLLoss,
)
"""Layers that PyTorch 2.14 lists under `torch.use_deterministic_algorithms` as raising on CUDA."""
_TORCH_SAYS = "does not have a deterministic implementation"
_WAY_OUT = "train it with deterministic: false, or choose another backbone"


def deterministic_mode(enabled: bool, device: torch.device | str) -> list[tuple[str, str]]:
    """Switches the mode on or off for this process, before the first product on a GPU.

    On: deterministic algorithms of PyTorch, no search for the fastest convolution by timing it, and on CUDA a fixed
    workspace for cuBLAS. Memory is not filled before use, as PyTorch does beside: nothing here reads what it did not
    write. Off: as PyTorch starts, but that cuDNN may search.

    Returns:
        What was decided, and why, with what it costs: nothing where the mode is off.

    Raises:
        RunError: the environment fixes a workspace with which cuBLAS is not deterministic.
    """
    device = torch.device(device)
    if enabled and device.type == "cuda":
        chosen = os.environ.setdefault(_WORKSPACE, _WORKSPACES[0])
        if chosen not in _WORKSPACES:
            raise RunError(
                f"{_WORKSPACE} is {chosen!r} in the environment, with which products on a GPU are not deterministic; "
                f"unset it or make it {_WORKSPACES[0]!r}"
            )
    torch.use_deterministic_algorithms(enabled)
    torch.utils.deterministic.fill_uninitialized_memory = not enabled  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = not enabled
    if not enabled:
        return []
    if device.type != "cuda":
        return [("on", f"asked for; on the {device.type} results repeat bit for bit with the same number of threads")]
    return [
        (
            "on",
            "asked for; cuDNN takes fixed algorithms instead of the fastest that it finds, gradients of resizing are "
            f"matrix products, {_WORKSPACE}={os.environ[_WORKSPACE]}; slower, and the same GPU, drivers and number of "
            "processes are needed to repeat a run",
        )
    ]


def nondeterministic_layers(network: nn.Module) -> list[tuple[str, str]]:
    """Returns the layers whose gradient has no deterministic form on CUDA: names in the network and what they are."""
    found = []
    for name, layer in network.named_modules():
        reason = _reason(layer)
        if reason is not None:
            found.append((name or type(network).__name__, reason))
    return found


def check_deterministic(network: nn.Module, device: torch.device | str) -> None:
    """Refuses, before training, a network that cannot be trained deterministically on ``device``.

    Raises:
        RunError: names the layers; only on CUDA.
    """
    layers = nondeterministic_layers(network) if torch.device(device).type == "cuda" else []
    if layers:
        listed = "; ".join(f"{name}: {reason}" for name, reason in layers[:4])
        more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
        raise RunError(
            f"deterministic: true, but {type(network).__name__} has layers without a deterministic gradient on CUDA "
            f"({listed}{more}); {_WAY_OUT}"
        )


@contextmanager
def deterministic_errors() -> Iterator[None]:
    """Turns PyTorch's refusal of an operation, within the block, into an error that says the way out.

    Raises:
        RunError: PyTorch refused one.
    """
    try:
        yield
    except RuntimeError as error:
        if _TORCH_SAYS not in str(error):
            raise
        operation = str(error).split(_TORCH_SAYS, maxsplit=1)[0].strip()
        raise RunError(f"deterministic: true, and {operation} {_TORCH_SAYS} in PyTorch; {_WAY_OUT}") from error


def _reason(layer: nn.Module) -> str | None:
    kind = type(layer).__name__
    if isinstance(layer, _REFUSED):
        return kind
    if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d):
        size = layer.output_size
        return None if size == 1 or set(size if isinstance(size, tuple) else (size,)) == {1} else f"{kind}({size})"
    if isinstance(layer, nn.Upsample) and layer.mode in _LINEAR_MODES:
        return f"{kind}(mode={layer.mode!r})"
    if isinstance(layer, nn.EmbeddingBag) and layer.mode == "max":
        return f"{kind}(mode='max')"
    if isinstance(layer, nn.modules.conv._ConvNd) and layer.padding_mode == "reflect":
        return f"{kind}(padding_mode='reflect')"
    return None
