"""The scores of an image that are watched, each as one of a few levels, from the outputs of model.onnx alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

N_LEVELS = 1001  # of novelty and of confidence
NOVELTY, CONFIDENCE, CLASS = "novelty", "confidence", "class"
SCORES = NOVELTY, CONFIDENCE, CLASS
WORDS = {NOVELTY: "novelty", CONFIDENCE: "confidence", CLASS: "class mix"}
_SUREST = -8.0  # log10 of a probability of being wrong; the float32 of a softmax tells no smaller one


def levels(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return score -> int64 [N] in 0..L-1, for `probabilities` float [N, C] and `novelty` float [N].

    High levels are strange: unlike the training images, or unsure. A class has no such order: any change of the mix
    moves many images up or down.
    """
    doubt = doubts(outputs["probabilities"])
    unsure = 1 - np.log10(np.maximum(doubt, 10**_SUREST)) / _SUREST
    return {
        NOVELTY: np.round(np.clip(outputs["novelty"], 0, 1) * (N_LEVELS - 1)).astype(np.int64),
        CONFIDENCE: np.round(unsure * (N_LEVELS - 1)).astype(np.int64),
        CLASS: outputs["probabilities"].argmax(1).astype(np.int64),
    }


def n_levels(score: str, n_classes: int) -> int:
    """Return how many levels a score has."""
    return n_classes if score == CLASS else N_LEVELS


def doubts(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 [N]: the probability of all classes but the first, summed, since 1 - p rounds to 0."""
    values = np.sort(probabilities.astype(np.float64), axis=1)
    total: np.ndarray = np.minimum(values[:, :-1].sum(1), 1.0)
    return total


def signature(outputs: Mapping[str, np.ndarray], n_columns: int) -> np.ndarray:
    """Return float64 [N, at most n_columns + 1], what two samples are compared by: log ratios, and the novelty.

    Log probabilities less their mean (Aitchison 1982). Of many classes, a random projection that is always the same.
    The outputs of a classifier show shifts better than most other reductions (Rabanser et al. 2019, section 5).
    """
    logs = np.log10(np.maximum(outputs["probabilities"].astype(np.float64), 1e-6))
    logs -= logs.mean(1, keepdims=True)
    n_classes = logs.shape[1]
    if n_classes > n_columns:
        logs = logs @ np.random.default_rng(0).normal(0, n_classes**-0.5, (n_classes, n_columns))
    return np.concatenate([logs, outputs["novelty"][:, None].astype(np.float64)], axis=1)
