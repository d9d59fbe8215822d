"""A bet against the claim that new images come from where the held-out ones do. It may be looked at at any time.

Each image gets a conformal p-value: its place among the scores of all held-out images and all images before it, with
ties broken at random. Where held-out and new images are exchangeable, these p-values are independent and uniform,
however few held-out images there are, because the past is part of every comparison (Vovk, Gammerman & Shafer 2005,
chapter 8). The capital of a bet on them is then a test martingale (Volkhonskiy et al. 2017; Vovk 2021, "Testing
randomness online"): the chance that it ever reaches 1/a is at most a (Ville 1939), for ever, however often one looks.

The bets are a mixture that follows the best of a few densities by sharing capital (Herbster & Warmuth 1998). A part of
the capital waits, and less and less of it joins the bets as time goes: 1 of t + 10 after t images. So a change after t
images costs a factor of about t, and not one that grows with every image since.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_POWERS = (0.3, 0.6, 0.85)  # of densities k p^(k-1): for many small p-values, and mirrored for many large ones
_N_BINS = 10
_MEMORY = 0.99  # weight of the p-values so far in the histogram, an image
_WAITS_FROM = 10.0
_SHARES = 0.002  # of the capital of each bet, an image
_SMALLEST_P = 1e-12
N_BETS = 2 + 2 * len(_POWERS)  # waiting, each power and its mirror, the histogram


@dataclass
class Martingale:
    """One score of images: how often each level of it was met, and the capital of the bet."""

    counts: np.ndarray  # int64 [L], held-out images and images so far by the level of their score
    weights: np.ndarray = field(default_factory=lambda: np.array([0.5] + [0.5 / (N_BETS - 1)] * (N_BETS - 1)))
    bins: np.ndarray = field(default_factory=lambda: np.ones(_N_BINS))  # of p-values so far, with forgetting
    n_images: int = 0  # since the bet began
    log_capital: float = 0.0  # natural; 0 at the beginning
    log_highest: float = 0.0

    def add(self, level: int, tie: float) -> float:
        """Bet on the next image, whose score has this level, then take it in; return its p-value.

        High levels are the strange ones. `tie` is uniform in 0..1 and of nothing that is known of images.
        """
        n_above, n_same = int(self.counts[level + 1 :].sum()), int(self.counts[level]) + 1
        p = (n_above + tie * n_same) / (int(self.counts.sum()) + 1)
        gains = self.weights * densities(p, self.bins)
        gain = float(gains.sum())
        self.log_capital += float(np.log(gain))
        self.log_highest = max(self.log_highest, self.log_capital)
        self.n_images += 1
        self.weights = _shared(gains / gain, self.n_images)
        self.bins *= _MEMORY
        self.bins += (1 - _MEMORY) * 0.1  # no bin ever loses all
        self.bins[_bin(p)] += 1
        self.counts[level] += 1
        return p


def densities(p: float, bins: np.ndarray) -> np.ndarray:
    """Return the value at p of each density that is bet on, [N_BETS]; each has the integral 1 over 0..1."""
    low, high = max(p, _SMALLEST_P), max(1 - p, _SMALLEST_P)
    powers = np.array(_POWERS)
    histogram = bins[_bin(p)] * _N_BINS / bins.sum()
    return np.concatenate([[1.0], powers * low ** (powers - 1), powers * high ** (powers - 1), [histogram]])


def _bin(p: float) -> int:
    return min(int(p * _N_BINS), _N_BINS - 1)


def _shared(weights: np.ndarray, n_images: int) -> np.ndarray:
    """Return the weights for the next image: some of what waits joins the bets, and bets share a little."""
    joining = weights[0] / (n_images + _WAITS_FROM)
    shared = _SHARES * weights[1:].sum()
    new = weights * (1 - _SHARES)
    new[0] = weights[0] - joining
    new[1:] += (shared + joining) / (N_BETS - 1)
    return new
