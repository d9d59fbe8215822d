"""Fit and select heads on features. Takes arrays and knows nothing of images, files or parameters.

Multinomial logistic regression with an L2 penalty on standardised features. The penalty's strength is chosen by
cross-validation, and probabilities are calibrated by one temperature fitted on the out-of-fold scores
(Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from headstart.errors import DataError


class Candidate(NamedTuple):
    """One strength and what cross-validation says of it, on images that the fit in question had not seen."""

    strength: float
    cv_accuracy: float
    cv_accuracy_std: float  # between folds
    cv_log_loss: float  # nats an image, calibrated by `temperature`
    temperature: float
    chosen: bool


@dataclass(frozen=True)
class Head:
    """Weight and bias that act on raw features: the standardiser and the temperature are folded in."""

    weight: np.ndarray  # float32 [D, C]
    bias: np.ndarray  # float32 [C]
    strength: float
    temperature: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return calibrated scores [N, C] for features [N, D]."""
        scores: np.ndarray = features.astype(np.float32) @ self.weight + self.bias
        return scores

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float32 [N, C], for features [N, D]."""
        log_p: np.ndarray = log_softmax(self.logits(features).astype(np.float64), axis=1)
        probabilities: np.ndarray = np.exp(log_p).astype(np.float32)
        return probabilities


@dataclass(frozen=True)
class Selection:
    """The head that won and the evidence for it."""

    head: Head
    candidates: tuple[Candidate, ...]  # in the order of their strengths, weakest first
    out_of_fold_logits: np.ndarray  # float64 [N, C] of the chosen strength, uncalibrated
    n_folds: int


def select(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    strengths: Sequence[float],
    folds: int,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Selection:
    """Choose a strength by stratified cross-validation that separates no group, then fit on everything.

    `features` float [N, D], `labels` int [N] in 0..C-1, `groups` [N]. The strength with the lowest calibrated log loss
    wins; within a tie the stronger. A strength is the penalty s in `mean cross-entropy + s/2 * sum(weight^2)`.
    `advance` is told of every fit, from several threads: (folds + 1) * len(strengths) at most.
    """
    path = sorted(set(strengths), reverse=True)  # each fit starts from its stronger neighbour's
    assignment = assign_folds(labels, groups, folds, seed)
    n_folds = int(assignment.max()) + 1
    logits = np.zeros((len(path), len(labels), n_classes))

    def cross_validate(fold: int) -> None:
        held_out = assignment == fold
        standardise = _Standardiser.fit(features[~held_out])
        inside, outside = standardise(features[~held_out]), standardise(features[held_out])
        for row, (weight, bias) in enumerate(_fit_path(inside, labels[~held_out], n_classes, path, advance)):
            logits[row, held_out] = outside @ weight + bias

    # Folds in parallel and BLAS on one thread: six times faster than the reverse, and the same bytes on any machine.
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(cross_validate, range(n_folds)))
        scored = [_score(logits[row], labels, assignment, strength) for row, strength in enumerate(path)]
        best = min(range(len(path)), key=lambda row: round(scored[row].cv_log_loss, 6))
        standardise = _Standardiser.fit(features)
        *_, (weight, bias) = _fit_path(standardise(features), labels, n_classes, path[: best + 1], advance)
    winner = scored[best]
    weight = weight / (standardise.scale[:, None] * winner.temperature)
    bias = bias / winner.temperature - standardise.mean @ weight
    head = Head(weight.astype(np.float32), bias.astype(np.float32), winner.strength, winner.temperature)
    candidates = [candidate._replace(chosen=row == best) for row, candidate in enumerate(scored)]
    return Selection(head, tuple(reversed(candidates)), logits[best], n_folds)


def assign_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int [N]: classes evenly spread, groups whole.

    Groups are dealt one by one, large ones first, each to the fold that has fewest images of its classes: the method of
    scikit-learn's StratifiedGroupKFold, whose import alone takes longer than fitting a head. Fewer folds are used where
    a class has fewer groups; DataError where it has only one.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))  # images of each group and class
    np.add.at(counts, (group_of, labels), 1)
    per_class = counts.sum(0)
    fewest = int((counts > 0).sum(0)[per_class > 0].min())
    if fewest < 2:
        raise DataError(
            "a class has a single group of images in train and val together, so nothing can be held out from it."
            " Two or more were expected. Add images of it, or remove the class."
        )
    share = counts / np.maximum(per_class, 1)  # of its class that each group has
    held = np.zeros((min(folds, fewest), counts.shape[1]))  # the same of each fold, as it fills
    fold_of_group = np.zeros(len(names), np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    for group in shuffled[np.argsort(-counts.sum(1)[shuffled], kind="stable")]:
        crowding = held @ (share[group] > 0)
        fold = int(np.lexsort((held.sum(1), crowding))[0])
        held[fold] += share[group]
        fold_of_group[group] = fold
    return fold_of_group[group_of]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    strength: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [D, C] and bias [C] that minimise mean cross-entropy + strength/2 * sum(weight^2), by L-BFGS."""
    n_images, n_features = features.shape
    design = np.hstack([features, np.ones((n_images, 1))]).astype(np.float32)  # half the time; L-BFGS itself is double
    truth = np.eye(n_classes, dtype=np.float32)[labels]
    penalty = np.append(np.full(n_features, strength), 0)  # the bias is free

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(n_classes, n_features + 1)
        log_p = log_softmax(design @ parameters.T.astype(np.float32), axis=1)
        gradient = ((np.exp(log_p) - truth).T @ design) / n_images + penalty * parameters
        value = _log_loss(log_p, labels) + 0.5 * np.sum(penalty * parameters**2)
        return float(value), gradient.ravel()

    first = np.zeros((n_classes, n_features + 1)) if start is None else np.column_stack([start[0].T, start[1]])
    options = {"maxiter": 500, "gtol": 1e-4, "ftol": 1e-9, "maxcor": 5}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    parameters = found.reshape(n_classes, n_features + 1)
    return parameters[:, :-1].T.copy(), parameters[:, -1].copy()


def _fit_path(
    features: np.ndarray, labels: np.ndarray, n_classes: int, path: Sequence[float], advance: Callable[[int], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the fit of each strength, from the strongest on, each started where the one before ended."""
    start = None
    for strength in path:
        start = fit(features, labels, n_classes, strength, start)
        advance(1)
        yield start


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T in 0.05..20 that minimises the log loss of softmax(logits / T)."""

    def loss(log_t: float) -> float:
        return _log_loss(log_softmax(logits / np.exp(log_t), axis=1), labels)

    bound = np.log(20.0)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6}).x))


def _score(logits: np.ndarray, labels: np.ndarray, assignment: np.ndarray, strength: float) -> Candidate:
    right = logits.argmax(1) == labels
    per_fold = [right[assignment == fold].mean() for fold in range(assignment.max() + 1)]
    temperature = fit_temperature(logits, labels)
    return Candidate(
        strength,
        float(right.mean()),
        float(np.std(per_fold)),
        _log_loss(log_softmax(logits / temperature, axis=1), labels),
        temperature,
        chosen=False,
    )


def _log_loss(log_p: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_p[np.arange(len(labels)), labels].mean(dtype=np.float64))


class _Standardiser(NamedTuple):
    mean: np.ndarray  # [D]
    scale: np.ndarray  # [D]; 1 where a feature never varies

    @classmethod
    def fit(cls, features: np.ndarray) -> _Standardiser:
        wide = features.astype(np.float64)
        scale = wide.std(axis=0)
        return cls(wide.mean(axis=0), np.where(scale > 1e-12, scale, 1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        standardised: np.ndarray = (features.astype(np.float64) - self.mean) / self.scale
        return standardised
