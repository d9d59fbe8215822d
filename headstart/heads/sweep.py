"""Fit and select heads on features. Takes arrays and knows nothing of images, files or parameters.

Multinomial logistic regression with an L2 penalty on standardised features. The penalty's strength is chosen by
cross-validation, and probabilities are calibrated by one temperature fitted on the out-of-fold scores
(Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).

Memory is bounded by the caller, not by the number of images: what does not fit is read again at every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from headstart.base.cores import n_cores
from headstart.base.errors import DataError

PROCESS_MB = 500  # what the interpreter, the libraries and the tables take; measured 300 to 400
MAX_VALIDATED = 50_000  # images in the cross-validation: more would not make the choice of a strength any surer
_BLOCK_ROWS = 2048  # read, standardised and multiplied at a time
_PARTS = 8  # sums of a pass; a fixed number, so that the bytes do not depend on the number of cores


class Rows(Protocol):
    """What features are read from: an array [N, ..., D], or something that gives its rows when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers."""


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
    validated: np.ndarray  # int [V], the numbers of the images in the cross-validation
    fold_of: np.ndarray  # int [V]
    out_of_fold_logits: np.ndarray  # float64 [V, C] of the chosen strength, uncalibrated

    @property
    def n_folds(self) -> int:
        """As many as the smallest class allowed."""
        return int(self.fold_of.max()) + 1


def select(
    features: Rows,
    labels: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    strengths: Sequence[float],
    folds: int,
    seed: int,
    memory_mb: int,
    views: Rows | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Selection:
    """Choose a strength by stratified cross-validation that separates no group, then fit on everything.

    `features` float [N, D], `labels` int [N] in 0..C-1, `groups` [N]; `views` float [N, V, D] are further rows of the
    same images, which are trained on and never scored. The strength with the lowest calibrated log loss wins; within a
    tie the stronger. A strength is the penalty s in `mean cross-entropy + s/2 * sum(weight^2)`. Where there are more
    than `MAX_VALIDATED` images, or `memory_mb` of the whole process do not hold them, the cross-validation has a drawn
    part of them, in whole groups.
    `advance` is told of every fit, from several threads: (folds + 1) * len(strengths), if no fold falls away.
    """
    path = sorted(set(strengths), reverse=True)  # each fit starts from its stronger neighbour's
    source = _Source(features, views, labels)
    bytes_per_image = 4 * source.per_image * (source.n_features + 1) + 8 * len(path) * n_classes
    budget = (memory_mb - PROCESS_MB) * 10**6
    validated = draw(labels, groups, max(1, min(MAX_VALIDATED, budget // bytes_per_image)), seed)
    assignment = assign_folds(labels[validated], groups[validated], folds, seed)
    n_folds = int(assignment.max()) + 1
    logits = np.zeros((len(path), len(validated), n_classes))

    at_a_time = int(min(n_cores(), n_folds, max(1, budget // (bytes_per_image * len(validated)))))

    def cross_validate(fold: int) -> None:
        held_out = assignment == fold
        design = _Design(source, validated[~held_out], hold=True, n_threads=n_cores() // at_a_time)
        for row, found in enumerate(_fit_path(design, n_classes, path, advance)):
            logits[row, held_out] = scores(features, validated[held_out], *design.on_raw_features(*found))

    # Folds in parallel and BLAS on one thread: six times faster than the reverse, and the same bytes on any machine.
    with threadpool_limits(1):
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(cross_validate, range(n_folds)))
        truth = labels[validated]
        scored = [_score(logits[row], truth, assignment, strength) for row, strength in enumerate(path)]
        best = min(range(len(path)), key=lambda row: round(scored[row].cv_log_loss, 6))
        design = _Design(source, validated, hold=True)
        *_, (weight, bias) = _fit_path(design, n_classes, path[: best + 1], advance)
        advance(len(path) - best - 1)  # what need not be fitted
        if len(validated) < len(labels):
            start = design.on_raw_features(weight, bias)
            del design  # before the next one takes its room
            design = _Design(source, np.arange(len(labels)), hold=bytes_per_image * len(labels) <= budget)
            weight, bias = _minimise(design, n_classes, path[best], design.on_standardised(*start))
            advance(1)
    winner = scored[best]
    weight, bias = design.on_raw_features(weight / winner.temperature, bias / winner.temperature)
    head = Head(weight.astype(np.float32), bias.astype(np.float32), winner.strength, winner.temperature)
    candidates = [candidate._replace(chosen=row == best) for row, candidate in enumerate(scored)]
    return Selection(head, tuple(reversed(candidates)), validated, assignment, logits[best])


def draw(labels: np.ndarray, groups: np.ndarray, n_images: int, seed: int) -> np.ndarray:
    """Return the sorted numbers of all images, or of about `n_images` in whole groups, two of every class at least."""
    if n_images >= len(labels):
        return np.arange(len(labels))
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_class = order[np.argsort(labels[first][order], kind="stable")]
    of_class = labels[first][by_class]
    starts = np.concatenate([[True], of_class[1:] != of_class[:-1]])
    is_among_first_two = starts | np.concatenate([[False], starts[:-1]])
    needed = by_class[is_among_first_two]
    queue = np.concatenate([needed, order[~np.isin(order, needed)]])
    sizes = np.bincount(group_of)[queue]
    taken = np.cumsum(sizes) <= n_images
    taken[: len(needed)] = True
    return np.flatnonzero(np.isin(group_of, queue[taken]))


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


class _Source(NamedTuple):
    """Rows to train on: each image's own, and its views."""

    features: Rows  # [N, D]
    views: Rows | None  # [N, V, D]
    labels: np.ndarray  # int [N]

    @property
    def n_features(self) -> int:
        return self.features.shape[1]

    @property
    def per_image(self) -> int:
        return 1 + (self.views.shape[1] if self.views is not None else 0)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [len(images) * per_image, D], an image's rows beside each other."""
        rows = self.features[images].astype(np.float32)
        if self.views is None:
            return rows
        both = np.concatenate([rows[:, None], self.views[images].astype(np.float32)], axis=1)
        return both.reshape(-1, self.n_features)


class _Design:
    """The standardised rows of some images and a column of ones, in blocks: held in memory, or made at every pass."""

    def __init__(self, source: _Source, images: np.ndarray, hold: bool, n_threads: int = 0) -> None:
        self._source, self._n_threads = source, n_threads or n_cores()
        step = max(1, _BLOCK_ROWS // source.per_image)
        self._blocks = [images[start : start + step] for start in range(0, len(images), step)]
        self.n_rows = len(images) * source.per_image
        self.n_features = source.n_features
        self.mean = self._sum(lambda rows: rows.sum(0, dtype=np.float64)) / self.n_rows
        variance = self._sum(lambda rows: np.square(rows - self.mean).sum(0)) / self.n_rows
        self.scale = np.where(np.sqrt(variance) > 1e-12, np.sqrt(variance), 1.0)  # 1 where a feature never varies
        self._held = [self._standardised(block) for block in self._blocks] if hold else None

    def loss(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean cross-entropy and its gradient for float64 [C, D + 1]."""
        narrow = parameters.T.astype(np.float32)
        classes = np.arange(len(parameters))

        def of_block(number: int) -> tuple[float, np.ndarray]:
            block = self._held[number] if self._held else self._standardised(self._blocks[number])
            labels = np.repeat(self._source.labels[self._blocks[number]], self._source.per_image)
            log_p = log_softmax(block @ narrow, axis=1)
            miss = np.exp(log_p) - (labels[:, None] == classes)
            return _log_loss(log_p, labels) * len(labels), (miss.T.astype(np.float32) @ block).astype(np.float64)

        losses, gradients = zip(*self._in_parts(of_block), strict=True)
        return sum(losses) / self.n_rows, sum(gradients) / self.n_rows

    def on_raw_features(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weight [D, C] and bias [C] that do on features what these do on standardised ones."""
        raw = weight / self.scale[:, None]
        return raw, bias - self.mean @ raw

    def on_standardised(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undo `on_raw_features`."""
        return weight * self.scale[:, None], bias + self.mean @ weight

    def _standardised(self, images: np.ndarray) -> np.ndarray:
        rows = self._source.read(images)
        block = np.ones((len(rows), self.n_features + 1), np.float32)
        np.subtract(rows, self.mean, out=block[:, :-1], casting="same_kind")
        block[:, :-1] /= self.scale
        return block

    def _sum(self, of_rows: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total: np.ndarray = sum(self._in_parts(lambda number: of_rows(self._source.read(self._blocks[number]))))
        return total

    def _in_parts(self, of_block: Callable[[int], Any]) -> list[Any]:
        """Return sums of `of_block` over consecutive blocks, in an order that does not depend on the cores."""
        parts = np.array_split(np.arange(len(self._blocks)), min(_PARTS, len(self._blocks)))

        def of_part(numbers: np.ndarray) -> Any:
            total = of_block(int(numbers[0]))
            for number in numbers[1:]:
                total = _add(total, of_block(int(number)))
            return total

        if self._n_threads == 1 or len(parts) == 1:
            return [of_part(part) for part in parts]
        with ThreadPoolExecutor(self._n_threads) as pool:
            return list(pool.map(of_part, parts))


def _add(one: Any, other: Any) -> Any:
    return tuple(map(np.add, one, other)) if isinstance(one, tuple) else one + other


def fit(
    features: Rows,
    labels: np.ndarray,
    n_classes: int,
    strength: float,
    views: Rows | None = None,
    *,
    images: np.ndarray | None = None,
    hold: bool = True,
    n_threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 weight [D, C] and bias [C], for features as they are, of one strength fitted on all or `images`.

    With `hold` the standardised features stay in memory; else they are read again at every pass. `n_threads` 0: a core
    each.
    """
    with threadpool_limits(1):
        chosen = np.arange(len(labels)) if images is None else images
        design = _Design(_Source(features, views, labels), chosen, hold, n_threads)
        return design.on_raw_features(*_minimise(design, n_classes, strength))


def scores(features: Rows, images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return float64 [len(images), C] of a head on features as they are, for images of these numbers."""
    parts = (images[start : start + _BLOCK_ROWS] for start in range(0, len(images), _BLOCK_ROWS))
    return np.concatenate([features[part].astype(np.float64) @ weight + bias for part in parts])


def _minimise(
    design: _Design, n_classes: int, strength: float, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [D, C] and bias [C] that minimise mean cross-entropy + strength/2 * sum(weight^2), by L-BFGS."""
    penalty = np.append(np.full(design.n_features, strength), 0)  # the bias is free

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(n_classes, -1)
        value, gradient = design.loss(parameters)
        return value + 0.5 * float(np.sum(penalty * parameters**2)), (gradient + penalty * parameters).ravel()

    first = np.zeros((n_classes, design.n_features + 1)) if start is None else np.column_stack([start[0].T, start[1]])
    options = {"maxiter": 500, "gtol": 1e-4, "ftol": 1e-9, "maxcor": 5}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    parameters = found.reshape(n_classes, -1)
    return parameters[:, :-1].T.copy(), parameters[:, -1].copy()


def _fit_path(
    design: _Design, n_classes: int, path: Sequence[float], advance: Callable[[int], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the fit of each strength, from the strongest on, each started where the one before ended."""
    start = None
    for strength in path:
        start = _minimise(design, n_classes, strength, start)
        advance(1)
        yield start


def fit_temperature(logits: np.ndarray, labels: np.ndarray, caution: float = 0.0) -> float:
    """Return the T in 0.05..20 that minimises the log loss of softmax(logits / T), float [N, C].

    With `caution`, log T has a normal prior of variance 1 / (2 * caution) around 0: a few images that all happen to be
    right then do not make a model sure of everything. It fades as N grows.
    """

    def loss(log_t: float) -> float:
        return _log_loss(log_softmax(logits / np.exp(log_t), axis=1), labels) + caution * log_t**2 / len(labels)

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
