"""torch.compile around a network that trains: where it pays, and never at the price of a step.

The network itself is not touched: state, artifacts, moving averages and evaluations use it as it is, and only the step
calls the compiled form of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from perpixel.engine.randomness import kept_random_state
from perpixel.engine.step import Forward
from perpixel.errors import InvalidValue
from perpixel.types import SegOutput

__all__ = ["CompileChoice", "CompileMode", "CompiledForward", "choose_compilation", "compiled"]

CompileMode: TypeAlias = Literal["auto"] | bool

_CUDA_STEPS = 300
"""Steps over which a GPU earns back the seconds, about 30 to 90, that compiling a network takes."""


class CompileChoice(NamedTuple):
    """Whether a network is compiled, and the reason."""

    compiles: bool
    reason: str

    @property
    def name(self) -> str:
        """In a word, for the run's decisions."""
        return "compiled" if self.compiles else "eager"


def choose_compilation(
    mode: CompileMode, device: torch.device | str, *, steps: int, eager_because: str | None = None
) -> CompileChoice:
    """Settles ``"auto"``: compiled for long runs on CUDA; eager on the CPU, where it was measured not to pay.

    Args:
        mode: ``"auto"``, True or False.
        device: Where the network trains.
        steps: Updates that are still to come.
        eager_because: Why this network, or this run, cannot be compiled; stronger than ``mode``.

    Raises:
        InvalidValue: the mode is none of the three.
    """
    if mode not in ("auto", True, False):
        raise InvalidValue(f"compile is 'auto', true or false, got {mode!r}")
    kind = torch.device(device).type
    if mode is False:
        return CompileChoice(False, "asked for")
    if eager_because is not None:
        return CompileChoice(False, eager_because)
    if mode is True:
        return CompileChoice(True, "asked for")
    if kind != "cuda":
        return CompileChoice(False, f"on {kind} the convolutions decide, and compiling leaves those as they are")
    if steps < _CUDA_STEPS:
        return CompileChoice(False, f"{steps} steps are too few to earn back the time that compiling takes")
    return CompileChoice(True, f"{steps} steps on a GPU")


def compiled(
    network: nn.Module,
    mode: CompileMode,
    device: torch.device | str,
    *,
    steps: int,
    warn: Callable[[str], None],
    eager_because: str | None = None,
    backend: str = "inductor",
) -> tuple[Forward, CompileChoice]:
    """Returns what a step calls, the network or its compiled form, and the choice with its reason.

    Args:
        network: On its device; its crops must all be of one size.
        mode: See `choose_compilation`.
        device: Where it trains.
        steps: Updates that are still to come.
        warn: Receives a sentence when compiling fails; the network then runs as it is.
        eager_because: See `choose_compilation`.
        backend: Of torch.compile; ``"eager"`` traces only.

    Raises:
        InvalidValue: the mode is unknown.
    """
    choice = choose_compilation(mode, device, steps=steps, eager_because=eager_because)
    return (CompiledForward(network, warn, backend=backend) if choice.compiles else network), choice


class CompiledForward:
    """Calls a network compiled, and as it is once compiling has failed; what it computes is the same, to rounding.

    The first call in training also tries the backward pass, which torch compiles late, so that a failure there costs
    no step either.
    """

    def __init__(self, network: nn.Module, warn: Callable[[str], None], *, backend: str = "inductor") -> None:
        self._network, self._warn = network, warn
        self._compiled: Callable[[Tensor], SegOutput] | None = torch.compile(network, dynamic=False, backend=backend)
        self._tried = False

    def __call__(self, images: Tensor) -> SegOutput:
        if self._compiled is not None and not self._tried:
            self._tried = True
            self._try(self._compiled, images)
        output: SegOutput = (self._network if self._compiled is None else self._compiled)(images)
        return output

    def _try(self, forward: Callable[[Tensor], SegOutput], images: Tensor) -> None:
        """Runs both passes once and leaves weights, gradients, statistics and generators as they were."""
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        try:
            with kept_random_state():
                _both_passes(forward, self._network, images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler raises; what is wrong with the network itself comes again
            self._compiled = None
            self._warn(f"the network is not compiled and runs as it is, to the same results: {_first_words(error)}")
        finally:
            with torch.no_grad():
                for name, buffer in self._network.named_buffers():
                    buffer.copy_(buffers[name])


def _both_passes(forward: Callable[[Tensor], SegOutput], network: nn.Module, images: Tensor) -> None:
    output = forward(images)
    scores = [score for part in output for score in (part if isinstance(part, tuple) else (part,))]
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not torch.is_grad_enabled() or not weights:
        return
    with torch.autocast(images.device.type, enabled=False):
        loss: Any = sum(score.float().sum() for score in scores)
        torch.autograd.grad(loss, weights, allow_unused=True)


def _first_words(error: Exception) -> str:
    """Returns the first line of an error's message, and the next where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
