"""A weighted mean of calibrated scores of several heads, chosen greedily (Caruana et al. 2004).

Only linear heads are blended: a weighted sum of linear scores is linear, so a blend is one Gemm where it is deployed.
"""

from __future__ import annotations

import numpy as np

from headstart.heads.calibration import log_loss

NAME = "blend"
WORDS = "weighted mean of linear heads"
_ROUNDS = 20
_MAX_IMAGES = 4000  # that decide; more would change the weights by less than one of the rounds
_WORTHWHILE = 1e-5  # nats an image that a round has to gain


def weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weight of each head, float64 [M], all together 1, for calibrated scores of held-out images.

    `scores` float [M, N, C]; `labels` int [N]. Each round adds the head, with replacement, that lowers the log loss of
    the mean most.
    """
    step = -(-len(labels) // _MAX_IMAGES)
    scores, labels = scores[:, ::step], labels[::step]
    counts, total, lowest = np.zeros(len(scores)), np.zeros(scores.shape[1:]), np.inf
    for taken in range(1, _ROUNDS + 1):
        tried = [log_loss((total + each) / taken, labels) for each in scores]
        best = int(np.argmin(tried))
        if tried[best] > lowest - _WORTHWHILE:
            break
        lowest = tried[best]
        counts[best] += 1
        total += scores[best]
    shares: np.ndarray = counts / counts.sum()
    return shares
