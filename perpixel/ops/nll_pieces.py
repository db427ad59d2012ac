"""The arithmetic of `full_size_nll` on the CPU, in pieces of an image that stay in the processor's cache.

Shapes: B batch, K classes, H W scores and labels, n pixels of a piece. A piece is taken as it lies in memory: as planes
(K, n), or as rows (n, K) of scores that lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perpixel.ops.focus import focused, focused_slope
from perpixel.ops.host_threads import share_out
from perpixel.ops.nll_checks import check_labels, computed_in

__all__ = ["gradient_in_pieces", "laid_out_as", "maps_in_pieces", "total_in_pieces"]

# Measured on one core for K from 2 to 150, float32 and bfloat16, both memory formats.
_ROW_CLASSES = (
    16  # PyTorch's softmax of values side by side works on 16 at once: of fewer, rows take four times as long
)
_PIECE_SCORES = 1 << 18  # of all classes: 1 MiB of float32; twice as many change little, half as many are slower


class _Piece:
    """Pixels (n,) of an image with their scores, in the dtype to compute in.

    Args:
        labels: (n,), whole numbers.
        ignore_index: As in `full_size_nll`.
        axis: That of the classes in ``scores``.
        scores: (K, n) or (n, K).
        mix: The class mix (K,).
    """

    def __init__(self, labels: Tensor, ignore_index: int, axis: int, scores: Tensor, mix: Tensor | None) -> None:
        labels = labels.long()
        self.ignored = labels == ignore_index
        self.index = labels.masked_fill(self.ignored, 0).unsqueeze(axis)
        self.scores, self.mix, self._axis = scores, mix, axis

    def has_labels_of_classes(self) -> bool:
        """Tells whether every label that counts is a class."""
        lowest, highest = self.index.aminmax()
        return int(lowest) >= 0 and int(highest) < self.scores.shape[self._axis]

    def counted(self, own: float = 1.0) -> Tensor:
        """(n,): ``own`` where the label counts, else 0."""
        return torch.full(self.ignored.shape, own, dtype=self.scores.dtype).masked_fill_(self.ignored, 0)

    def likelihoods(self, spread: bool) -> tuple[Tensor, Tensor | None]:
        """Returns nll and, if asked for, spread (n,), 0 where ignored."""
        raise NotImplementedError

    def write_gradient(self, pull: Tensor, push: Tensor | None, gradient: Tensor) -> None:
        """Fills the gradient, shaped as the scores, with that of sum(pull * nll) + sum(push * spread); the last step.

        ``pull`` and ``push`` are (n,), zero where ignored.
        """
        raise NotImplementedError

    def _scaled(self, pull: Tensor, push: Tensor | None) -> Tensor:
        """What the probabilities of a pixel are multiplied by: (n,)."""
        return pull if push is None or self.mix is None else torch.addcmul(pull, push, self.mix.sum())

    def _take_labels(self, powers: Tensor, pull: Tensor, push: Tensor | None) -> None:
        """Takes from multiplied probabilities what labels and class mix ask for."""
        if push is not None and self.mix is not None:
            powers.addr_(*((push, self.mix) if self._axis else (self.mix, push)), alpha=-1)
        powers.scatter_add_(self._axis, self.index, pull.neg().unsqueeze(self._axis))


class _Planes(_Piece):
    """Scores (K, n): every step goes along the pixels, and one exponential per score serves value and gradient."""

    def __init__(self, scores: Tensor, dtype: torch.dtype, labels: Tensor, ignore_index: int, mix: Tensor | None):
        exact = scores if scores.dtype == dtype and scores.stride(1) == 1 else scores.to(dtype).contiguous()
        super().__init__(labels, ignore_index, 0, exact - exact.amax(0), mix)
        self._sums: Tensor | None = None

    def likelihoods(self, spread: bool) -> tuple[Tensor, Tensor | None]:
        """Returns nll and, if asked for, spread (n,), 0 where ignored."""
        chosen = self.scores.gather(0, self.index)[0]
        mixed = torch.mv(self.scores.t(), self.mix) if spread and self.mix is not None else None
        log_sums = self._powers()[1].log()
        nll = torch.sub(log_sums, chosen, out=chosen).masked_fill_(self.ignored, 0)
        if mixed is None or self.mix is None:
            return nll, None
        return nll, torch.sub(log_sums * self.mix.sum(), mixed, out=mixed).masked_fill_(self.ignored, 0)

    def write_gradient(self, pull: Tensor, push: Tensor | None, gradient: Tensor) -> None:
        """Fills the gradient (K, n) with that of sum(pull * nll) + sum(push * spread)."""
        powers, sums = self._powers()
        fits = gradient.dtype == powers.dtype and gradient.stride(1) == 1
        powers = torch.mul(powers, self._scaled(pull, push) / sums, out=gradient if fits else powers)
        self._take_labels(powers, pull, push)
        if not fits:
            gradient.copy_(powers)

    def _powers(self) -> tuple[Tensor, Tensor]:
        """Makes exponentials of the scores, in their place, and their sums (n,)."""
        if self._sums is None:
            self._sums = self.scores.exp_().sum(0)
        return self.scores, self._sums


class _Rows(_Piece):
    """Scores (n, K)."""

    def __init__(self, scores: Tensor, dtype: torch.dtype, labels: Tensor, ignore_index: int, mix: Tensor | None):
        super().__init__(labels, ignore_index, 1, scores.to(dtype), mix)
        self._log_p: Tensor | None = None

    def likelihoods(self, spread: bool) -> tuple[Tensor, Tensor | None]:
        """Returns nll and, if asked for, spread (n,), 0 where ignored."""
        self._log_p = torch.log_softmax(self.scores, 1)
        nll = self._log_p.gather(1, self.index)[:, 0].neg_().masked_fill_(self.ignored, 0)
        if not spread or self.mix is None:
            return nll, None
        return nll, torch.mv(self._log_p, self.mix).neg_().masked_fill_(self.ignored, 0)

    def write_gradient(self, pull: Tensor, push: Tensor | None, gradient: Tensor) -> None:
        """Fills the gradient (n, K) with that of sum(pull * nll) + sum(push * spread)."""
        if self._log_p is None:
            powers = torch.softmax(self.scores, 1)
        else:
            powers = torch.exp(self._log_p, out=gradient if gradient.dtype == self._log_p.dtype else self._log_p)
        powers.mul_(self._scaled(pull, push)[:, None])
        self._take_labels(powers, pull, push)
        if powers.data_ptr() != gradient.data_ptr():
            gradient.copy_(powers)


class _Pieces:
    """A batch piece by piece, cut the same for any number of threads."""

    def __init__(self, logits: Tensor, target: Tensor, ignore_index: int, class_mix: Tensor | None) -> None:
        self.dtype = computed_in(logits.dtype)
        self._logits, self._target = logits.contiguous(memory_format=laid_out_as(logits)), target.contiguous()
        self._ignore_index, self._mix = ignore_index, None if class_mix is None else class_mix.to(self.dtype)
        batch, classes, height, width = logits.shape
        self._rows = laid_out_as(logits) is torch.channels_last and classes >= _ROW_CLASSES
        self._pixels = -(-height * width // -(-height * width * classes // _PIECE_SCORES))
        self._of_image = -(-height * width // self._pixels)
        self.number = batch * self._of_image

    def at(self, index: int) -> _Piece:
        """Makes a piece.

        Raises:
            InvalidValue: a label in it is no class.
        """
        form, labels = _Rows if self._rows else _Planes, self.of_map(self._target, index)
        piece = form(self.of_scores(self._logits, index), self.dtype, labels, self._ignore_index, self._mix)
        if not piece.has_labels_of_classes():
            check_labels(self._target, self._logits.shape[1], self._ignore_index)
        return piece

    def of_map(self, pixels: Tensor, index: int) -> Tensor:
        """A piece of a contiguous map (B, H, W): (n,)."""
        return pixels[index // self._of_image].view(-1)[self._cut(index)]

    def of_scores(self, scores: Tensor, index: int) -> Tensor:
        """A piece of a map (B, K, H, W) laid out as the scores: (K, n) or (n, K)."""
        part = scores[index // self._of_image].flatten(1)[:, self._cut(index)]
        return part.t() if self._rows else part

    def run(self, work: Callable[[int, _Piece], None]) -> None:
        """Calls ``work`` with every piece and its index."""

        def several(indices: range) -> None:
            for index in indices:
                work(index, self.at(index))

        share_out(self.number, self._logits.device, several)

    def _cut(self, index: int) -> slice:
        start = index % self._of_image * self._pixels
        return slice(start, start + self._pixels)


def maps_in_pieces(
    logits: Tensor, target: Tensor, ignore_index: int, class_mix: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Returns -log p of the labels and, for a class mix v, sum_k v_k (-log p_k): (B, H, W), 0 where ignored."""
    pieces = _Pieces(logits, target, ignore_index, class_mix)
    nll = torch.empty(target.shape, dtype=pieces.dtype, device=logits.device)
    spread = None if class_mix is None else torch.empty_like(nll)

    def work(index: int, piece: _Piece) -> None:
        own, mixed = piece.likelihoods(spread is not None)
        pieces.of_map(nll, index).copy_(own)
        if spread is not None and mixed is not None:
            pieces.of_map(spread, index).copy_(mixed)

    pieces.run(work)
    return nll, spread


def gradient_in_pieces(
    own: Tensor, mixed: Tensor | None, logits: Tensor, target: Tensor, ignore_index: int, class_mix: Tensor | None
) -> Tensor:
    """Returns the gradient (B, K, H, W) of sum(own * nll) + sum(mixed * spread), laid out as the scores."""
    pieces = _Pieces(logits, target, ignore_index, class_mix)
    gradient = torch.empty_like(logits, memory_format=laid_out_as(logits))
    pulls = own.to(pieces.dtype).contiguous()
    pushes = None if mixed is None else mixed.to(pieces.dtype).contiguous()

    def work(index: int, piece: _Piece) -> None:
        pull = pieces.of_map(pulls, index).masked_fill(piece.ignored, 0)
        push = None if pushes is None else pieces.of_map(pushes, index).masked_fill(piece.ignored, 0)
        piece.write_gradient(pull, push, pieces.of_scores(gradient, index))

    pieces.run(work)
    return gradient


def total_in_pieces(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    own: float,
    ignore_index: int,
    class_mix: Tensor | None,
    focus: float,
    gradient: Tensor | None,
) -> Tensor:
    """Returns own * sum(weight * nll) + sum(spread), and fills its gradient (B, K, H, W), laid out as the scores.

    With a ``focus`` it is `focused`(nll) that is summed.
    """
    pieces = _Pieces(logits, target, ignore_index, class_mix)
    totals = torch.zeros(pieces.number, dtype=torch.float64, device=logits.device)
    weights = None if weight is None else weight.to(pieces.dtype).contiguous()

    def work(index: int, piece: _Piece) -> None:
        nll, spread = piece.likelihoods(class_mix is not None)
        if weights is None:
            pull = piece.counted(own)
        else:
            pull = pieces.of_map(weights, index).masked_fill(piece.ignored, 0).mul_(own)
        values = focused(nll, focus) if focus else nll
        totals[index] = torch.dot(values, pull) + (0 if spread is None else spread.sum())
        if gradient is not None:
            if focus:
                pull.mul_(focused_slope(nll, focus))
            push = None if spread is None else piece.counted()
            piece.write_gradient(pull, push, pieces.of_scores(gradient, index))

    pieces.run(work)
    return totals.sum().to(pieces.dtype)


def laid_out_as(logits: Tensor) -> torch.memory_format:
    """The memory format that scores (B, K, H, W) are taken in: channels_last where it is theirs alone."""
    if logits.is_contiguous() or not logits.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last
