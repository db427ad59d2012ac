"""ISBI 2012's scores of neuron segmentation: V_Rand and V_Info, of the cells that a membrane map parts.

Shapes: H W image, S predicted and T true segments, n true foreground pixels.
Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics", Frontiers in
Neuroanatomy 9:142, 2015, equations 3 and 5. Segments are the connected components of what is not membrane, in either
map. With p_ij the share of the true foreground pixels in predicted segment i and true segment j, s_i and t_j its sums:
- V_Rand: split = Σ p_ij² / Σ t_j², merge = Σ p_ij² / Σ s_i², score = Σ p_ij² / (α Σ s_i² + (1-α) Σ t_j²);
- V_Info: split = I(S;T) / H(S), merge = I(S;T) / H(T), score = I(S;T) / ((1-α) H(S) + α H(T));
with α = 0.5, where both scores are the F-score (harmonic mean) of split and merge. 1 is perfect; split falls when true
segments are cut, merge when they are joined.
"Foreground-restricted": true membrane is not scored. Ignored pixels are in no segment of either map, whatever was
predicted there: they part cells on both sides. Predicted membrane on true foreground belongs to no segment; as in
SNEMI3D's scoring each such pixel counts as a segment of its own, so that thick membranes cost split.
Thinning: the challenge thins the predicted membranes to one pixel first, so that their width does not matter. Here
``thin=False`` scores the map as it is; ``thin=True`` gives every predicted membrane pixel to the nearest segment, which
thins to nothing instead of to one pixel, and so scores a little higher than the challenge. The challenge also takes the
best of several thresholds of a membrane probability; here the map is binary: score several maps and take the best.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, generate_binary_structure, label

from perpixel.errors import InvalidValue
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = ["NEURON_SCORES", "NeuronScores", "NeuronSegmentation", "neuron_segmentation_scores", "neuron_values"]

_ALPHA = 0.5


class NeuronScores(TypedDict):
    """Fractions in [0, 1]; NaN where the truth has no foreground."""

    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float


NEURON_SCORES = tuple(NeuronScores.__annotations__)
"""The keys of `NeuronScores`."""


def neuron_segmentation_scores(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    *,
    membrane: int = 0,
    connectivity: Literal[4, 8] = 4,
    thin: bool = False,
    ignore_index: int = 255,
) -> NeuronScores:
    """Scores one image's segments.

    Args:
        prediction: Predicted train ids (H, W); all but ``membrane`` is inside of cells.
        target: True train ids (H, W), or ``ignore_index`` where nothing is scored.
        membrane: Train id of the membrane, 0 in the label space ``isbi2012``.
        connectivity: 4 parts cells that touch at a corner only, as the challenge does; 8 joins them.
        thin: Give each predicted membrane pixel to the nearest segment before scoring.
        ignore_index: Target value that is left out.

    Raises:
        InvalidValue: shapes differ or are not (H, W), the maps hold no integers, or the connectivity is another.
    """
    predicted, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise InvalidValue(f"prediction {predicted.shape} and target {truth.shape} must share one shape (H, W)")
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is 4 or 8, got {connectivity}")
    structure = generate_binary_structure(2, 1 if connectivity == 4 else 2)
    scored = truth != ignore_index
    true, _ = label((truth != membrane) & scored, structure)
    guess, _ = label((predicted != membrane) & scored, structure)
    if thin and guess.any():
        nearest = distance_transform_edt(guess == 0, return_distances=False, return_indices=True)
        guess = guess[tuple(nearest)]
    foreground = true > 0
    return _scores(guess[foreground].astype(np.int64), true[foreground].astype(np.int64))


class NeuronSegmentation:
    """Mean of the scores over images, as the challenge averages its slices; only sums are kept."""

    def __init__(self) -> None:
        self.images = 0
        """Images with true foreground."""
        self.sums: NDArray[np.float64] = np.zeros(len(NEURON_SCORES))

    def add(self, scores: NeuronScores) -> None:
        """Adds one image's scores; an image without true foreground is left out."""
        values = neuron_values(scores)
        if not np.isnan(values).any():
            self.images += 1
            self.sums += values

    def merge(self, other: NeuronSegmentation) -> None:
        """Adds the images of another."""
        self.images += other.images
        self.sums += other.sums

    def result(self) -> NeuronScores:
        """Returns the means, NaN without an image."""
        means = (self.sums / self.images).tolist() if self.images else [math.nan] * len(self.sums)
        v_rand, v_rand_split, v_rand_merge, v_info, v_info_split, v_info_merge = means
        return {
            "v_rand": v_rand,
            "v_rand_split": v_rand_split,
            "v_rand_merge": v_rand_merge,
            "v_info": v_info,
            "v_info_split": v_info_split,
            "v_info_merge": v_info_merge,
        }


def neuron_values(scores: NeuronScores) -> NDArray[np.float64]:
    """Returns the scores (6,) in the order of `NEURON_SCORES`."""
    return np.array([scores[name] for name in NEURON_SCORES])  # type: ignore[literal-required]


def _scores(guess: NDArray[np.int64], true: NDArray[np.int64]) -> NeuronScores:
    """From the segment of each true foreground pixel (n,); 0 in ``guess`` is predicted membrane."""
    alone = guess == 0
    guess = guess.copy()
    guess[alone] = guess.max(initial=0) + 1 + np.arange(np.count_nonzero(alone))
    _, rows, s = np.unique(guess, return_inverse=True, return_counts=True)
    _, columns, t = np.unique(true, return_inverse=True, return_counts=True)
    _, p = np.unique(rows * t.size + columns, return_counts=True)
    pairs, cut, joined = (_squares(counts) for counts in (p, s, t))
    h_s, h_t, h_st = (_entropy(counts) for counts in (s, t, p))
    shared = max(h_s + h_t - h_st, 0.0)
    if not true.size:
        return dict.fromkeys(NEURON_SCORES, math.nan)  # type: ignore[return-value]
    return {
        "v_rand": pairs / (_ALPHA * cut + (1 - _ALPHA) * joined),
        "v_rand_split": pairs / joined,
        "v_rand_merge": pairs / cut,
        "v_info": _share(shared, (1 - _ALPHA) * h_s + _ALPHA * h_t),
        "v_info_split": _share(shared, h_s),
        "v_info_merge": _share(shared, h_t),
    }


def _squares(counts: NDArray[np.int64]) -> float:
    return float((counts.astype(np.float64) ** 2).sum())


def _entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in nats of the distribution that counts (N,) make."""
    shares = counts / max(int(counts.sum()), 1)
    return float(-(shares * np.log(shares)).sum())


def _share(information: float, entropy: float) -> float:
    """One segment has no entropy, and nothing about it can be wrong: 1."""
    return min(information / entropy, 1.0) if entropy > 0 else 1.0
