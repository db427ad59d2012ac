"""What says that memory ran out, in the words of each allocator, and an error for people in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from perpixel.errors import RunError
from perpixel.inference.memory import bytes_text, free_memory, parse_bytes

__all__ = ["explained_out_of_memory", "is_out_of_memory", "shortage_text"]

_WORDS = ("you tried to allocate", "bad_alloc", "bad allocation", "can't allocate memory", "cannot allocate memory")
"""Of PyTorch's allocator on the CPU, of C++ and of the system; lower case."""
_CONVOLUTION = re.compile(r"could not create a (primitive(?! descriptor)|memory)")
"""What oneDNN says in its place: no room for the code or the buffers of a convolution."""
_ASKED = (
    re.compile(r"tried to allocate (\d+) bytes"),
    re.compile(r"[Tt]ried to allocate ([\d.]+ [KMGT]iB)"),
    re.compile(r"Unable to allocate ([\d.]+ [KMGT]iB)"),
)
"""PyTorch's allocators on the CPU and on CUDA, and NumPy."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that memory ran out, on the CPU or on CUDA."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        any(words in text for words in _WORDS) or bool(_CONVOLUTION.search(text))
    )


def shortage_text(error: BaseException, device: torch.device | str) -> str:
    """Says how much was asked for, where the error tells, and how much is free now: ``512 MB more were asked …``."""
    found = next((match for match in (words.search(str(error)) for words in _ASKED) if match), None)
    asked = f"{bytes_text(parse_bytes(found.group(1)))} more were asked for" if found else "more was asked for"
    return f"{asked}, and {bytes_text(free_memory(device))} of {torch.device(device).type} memory are free now"


@contextmanager
def explained_out_of_memory(device: torch.device | str, doing: str, way_out: str) -> Iterator[None]:
    """Turns the end of memory into a `RunError`.

    Args:
        device: Whose memory it is.
        doing: What is going on, as in "out of memory in …".
        way_out: A sentence.

    Raises:
        RunError: memory ran out; says what was asked, what is free, and the way out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"out of memory in {doing}: {shortage_text(error, device)}. {way_out}") from error
