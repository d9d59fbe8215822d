"""Ways to bring a head to images of another domain. Each takes features alone: no label of the target is known.

Those that move features find an affine map from the target to the source, so that the head stays as it is behind it.
Features of either side are first standardised by their own side; covariances are taken along the first `_AXES`
principal axes of both sides together, and shrunk (Ledoit & Wolf 2004), since there are often fewer images than
features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize
from scipy.special import softmax

from headstart.adapting.moved import Map, behind
from headstart.heads.contract import Fitted

_AXES = 64
_MMD_AXES, _MMD_ROWS, _MMD_STEPS = 16, 300, 60
_WIDTHS = (0.5, 1.0, 2.0)  # of the kernels, times the median distance
_STAYING = 1e-2  # weight of the squared distance of the adapter from the identity, beside the discrepancy
_NEVER_VARIES = 1e-6
_SHARES = (0.3, 0.6, 0.9)  # of the images of each guessed class that get a pseudo-label, round by round

Fit = Callable[[np.ndarray, np.ndarray], Fitted]  # features float [N, D] and labels int [N] to a head


@dataclass(frozen=True)
class Domains:
    """Images with labels, images without, and the head of the former."""

    source: np.ndarray  # float64 [N, D]
    labels: np.ndarray  # int [N] in 0..C-1
    target: np.ndarray  # float64 [M, D]
    head: Fitted
    fit: Fit  # a head of the same kind
    weights: np.ndarray | None = None  # float64 [N], mean 1: give the source the target's mix of classes; None: all 1

    @property
    def n_classes(self) -> int:
        """C."""
        return self.head.n_classes

    @cached_property
    def standard(self) -> Standard:
        """Both sides, each standardised by itself."""
        (mean, spread), (middle, units) = _moments(self.source, self.weights), _moments(self.target)
        source, target = (self.source - mean) / spread, (self.target - middle) / units
        through = Map.of_axes(spread / units, mean - middle * spread / units)
        return Standard(source, target, through, spread, units, middle)

    @cached_property
    def axes(self) -> np.ndarray:
        """The first principal axes of both standardised sides together, each as heavy, float64 [D, at most `_AXES`]."""
        sides = self.weighted(self.standard.source), self.standard.target
        rows = np.concatenate([side / len(side) ** 0.5 for side in sides])
        is_wide = rows.shape[1] > len(rows)
        products = rows @ rows.T if is_wide else rows.T @ rows
        last = len(products) - 1
        squares, vectors = linalg.eigh(products, subset_by_index=[max(0, last - _AXES + 1), last])
        real = squares > _NEVER_VARIES * squares[-1]
        found: np.ndarray = vectors[:, real]
        return rows.T @ (found / np.sqrt(squares[real])) if is_wide else found

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the source [N, K], each times the root of its weight."""
        return rows if self.weights is None else rows * np.sqrt(self.weights)[:, None]


class Standard(NamedTuple):
    """Both sides, each standardised by its own mean and scale."""

    source: np.ndarray  # float64 [N, D]
    target: np.ndarray  # float64 [M, D]
    through: Map  # from the target to the mean and the scale of the source
    spread: np.ndarray  # float64 [D]: scale of the source
    units: np.ndarray  # float64 [D]: scale of the target
    middle: np.ndarray  # float64 [D]: mean of the target


class Adapted(NamedTuple):
    """A head for the source's features, and the map that brings the target's features there."""

    head: Fitted
    map: Map | None = None  # None: they are there

    @property
    def whole(self) -> Fitted:
        """The head of the target's features as they are."""
        return self.head if self.map is None else behind(self.head, self.map)


Method = Callable[[Domains], Adapted]


def _moments(rows: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale of each column, float64 [D]; 1 for a column that never varies."""
    mean = np.average(rows, 0, weights)
    scale = np.sqrt(np.average(np.square(rows - mean), 0, weights))
    return mean, np.where(scale > _NEVER_VARIES, scale, 1.0)


def none(domains: Domains) -> Adapted:
    """Leave the head as it is."""
    return Adapted(domains.head)


def standardise(domains: Domains) -> Adapted:
    """Give every feature of the target the mean and the scale of the source (Li et al. 2017, adaptive batch norm)."""
    return Adapted(domains.head, domains.standard.through)


def coral(domains: Domains) -> Adapted:
    """Give the target the covariance of the source too (Sun, Feng & Saenko 2016): whiten, then colour."""
    of_source, of_target = _covariances(domains)
    return _along(domains, domains.axes, _power(of_target, -0.5) @ _power(of_source, 0.5))


def transport(domains: Domains) -> Adapted:
    """Move the target by the optimal map between normal distributions (Flamary et al. 2019, equation 2)."""
    of_source, of_target = _covariances(domains)
    root, inverse = _power(of_target, 0.5), _power(of_target, -0.5)
    moving = inverse @ _power(root @ of_source @ root, 0.5) @ inverse
    return _along(domains, domains.axes, moving)


def mmd(domains: Domains) -> Adapted:
    """Move the target by the linear map with the least MMD, a mixture of RBF kernels (Long et al. 2015, section 3)."""
    known, axes = domains.standard, domains.axes[:, -_MMD_AXES:]
    draw, shares = np.random.default_rng(0), None
    if domains.weights is not None:
        shares = domains.weights / domains.weights.sum()
    n_source, n_target = len(known.source), len(known.target)
    drawn = draw.choice(n_source, min(_MMD_ROWS, n_source), replace=shares is not None, p=shares)
    source = known.source[np.sort(drawn)] @ axes
    target = known.target[np.sort(draw.permutation(n_target)[:_MMD_ROWS])] @ axes
    n_axes = axes.shape[1]
    widths = _median(source) * np.square(_WIDTHS)
    start = np.concatenate([np.eye(n_axes), np.zeros((1, n_axes))])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        adapter = flat.reshape(start.shape)
        moved = target @ adapter[:-1] + adapter[-1]
        value, slope = _discrepancy(moved, source, widths)
        apart = adapter - start
        slopes = np.concatenate([target.T @ slope, slope.sum(0)[None]]) + 2 * _STAYING * apart
        return value + _STAYING * float(np.square(apart).sum()), slopes.ravel()

    found = optimize.minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MMD_STEPS})
    adapter = found.x.reshape(start.shape)
    return _along(domains, axes, adapter[:-1], adapter[-1])


def self_train(domains: Domains) -> Adapted:
    """Fit a head to the source and to pseudo-labels of the target, both standardised (Zou et al. 2018).

    The surest images of each guessed class get one, more in each round, so that no class takes over.
    """
    through, head = domains.standard.through, domains.head
    moved = through(domains.target)
    for share in _SHARES:
        probabilities = softmax(head.scores(moved), axis=1)
        guessed, sure = probabilities.argmax(1), probabilities.max(1)
        chosen = np.zeros(len(guessed), bool)
        for label in range(domains.n_classes):
            rows = np.flatnonzero(guessed == label)
            chosen[rows[np.argsort(-sure[rows], kind="stable")][: int(np.ceil(share * len(rows)))]] = True
        rows = np.concatenate([domains.source, moved[chosen]])
        head = domains.fit(rows, np.concatenate([domains.labels, guessed[chosen]]))
    return Adapted(head, through)


def label_shift(domains: Domains) -> Adapted:
    """Answer for another mix of classes, found by EM with the calibrated probabilities (Saerens et al. 2002)."""
    from headstart.monitoring.batch import mix_by_em

    before = np.bincount(domains.labels, minlength=domains.n_classes) + 0.5
    before = before / before.sum()
    ratios = softmax(domains.head.scores(domains.target), axis=1) / before
    weights = np.full(len(ratios), 1 / len(ratios))
    after = mix_by_em(ratios, before, weights, 100)
    shift = np.log(np.maximum(after, 0.5 / len(ratios))) - np.log(before)
    return Adapted(domains.head.calibrated(1.0, shift))


METHODS: Mapping[str, Method] = {
    each.__name__: each for each in (none, standardise, coral, mmd, transport, self_train, label_shift)
}


def _along(domains: Domains, axes: np.ndarray, moving: np.ndarray, bias: np.ndarray | float = 0.0) -> Adapted:
    """Return the head behind the map that standardises and then moves the coordinates along the axes."""
    known = domains.standard
    inner = axes / known.units[:, None]
    outer = ((moving - np.eye(len(moving))) @ axes.T) * known.spread
    along = np.broadcast_to(bias, len(moving)) @ axes.T * known.spread - (known.middle @ inner) @ outer
    return Adapted(domains.head, Map(known.through.scale, known.through.bias + along, inner, outer))


def _covariances(domains: Domains) -> list[np.ndarray]:
    sides = domains.weighted(domains.standard.source), domains.standard.target  # both have the mean 0
    return [_covariance(side @ domains.axes) for side in sides]


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Return the covariance [K, K] of rows of mean 0, shrunk to a multiple of the identity (Ledoit & Wolf 2004)."""
    n_rows, n_axes = rows.shape
    found = rows.T @ rows / n_rows
    middle = float(np.trace(found)) / n_axes
    distance = float(np.square(found - middle * np.eye(n_axes)).sum())
    noise = (float(np.square(np.square(rows).sum(1)).sum()) / n_rows - float(np.square(found).sum())) / n_rows
    share = min(1.0, max(0.0, noise) / distance) if distance > 0 else 1.0
    shrunk: np.ndarray = (1 - share) * found + share * max(middle, _NEVER_VARIES) * np.eye(n_axes)
    return shrunk


def _power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    powers = np.maximum(values, _NEVER_VARIES * values[-1]) ** exponent
    found: np.ndarray = (vectors * powers) @ vectors.T
    return found


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    found = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return np.asarray(np.maximum(found, 0))


def _median(rows: np.ndarray) -> float:
    return max(float(np.median(_squares(rows, rows)[np.triu_indices(len(rows), 1)])), _NEVER_VARIES)


def _discrepancy(moved: np.ndarray, source: np.ndarray, widths: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the squared MMD without the part of the source alone, and its slope along the moved rows, [M, K]."""
    value, slope = 0.0, np.zeros_like(moved)
    among, between = _squares(moved, moved), _squares(moved, source)
    for width in widths:
        for squares, rows, weight in ((among, moved, 1.0), (between, source, -2.0)):
            kernel = np.exp(-squares / (2 * width))
            value += weight * float(kernel.mean())
            pull = kernel @ rows - kernel.sum(1)[:, None] * moved
            slope += weight * (2.0 if rows is moved else 1.0) / (kernel.size * width) * pull
    return value, slope
