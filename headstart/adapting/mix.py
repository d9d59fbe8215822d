"""Which mix of classes the target has, where it looks otherwise too: so that moving features does not bend the classes.

To give the target the mean of the source is right where both have the same mix of classes. Where ants are twice as
frequent in the target, it would turn ants to bees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import chi2

from headstart.adapting.methods import Domains, standardise
from headstart.heads.folds import assign_folds

_FOLDS = 5
_STEPS, _CLOSE = 200, 1e-4
_LEVEL = 0.05  # of the test whether the mix is another: to miss one costs more than to see one where there is none
# Where classes have come this near to each other, their shares cannot be told: in development, shares of the target
# were off by 0.1 at most above, and by 0.3 to 0.6 below.
_LEAST_APART = 0.5
_TINY = 1e-6


class Mixture(NamedTuple):
    """A mixture of normal distributions, one a class: what the scores of the target are taken for."""

    log_likelihood: float
    shares: np.ndarray  # float64 [C]
    apart: float  # the distances between classes, those of the source being 1


def shares(domains: Domains) -> np.ndarray | None:
    """Return the mix of classes of the target, float64 [C], if it is another than the source's, and can be told.

    By maximum likelihood (EM) on the head's scores of the standardised target: classes have the places and the spread
    to each other that they have in the source, but for one shift, one scale of the places and one of the spread. The
    mix counts as another by a likelihood ratio test at 5 %.
    """
    n_classes = domains.n_classes
    known = _centred(_held_out(domains))
    of_class = [domains.labels == label for label in range(n_classes)]
    means = np.stack([known[each if each.any() else slice(None)].mean(0) for each in of_class])
    rest = known - means[domains.labels]
    spread = rest.T @ rest / len(rest)
    spread += _TINY * np.trace(spread) * np.eye(n_classes - 1)
    turning = np.linalg.cholesky(np.linalg.inv(spread))
    moved = standardise(domains).whole.scores(domains.target)
    scores, places = _centred(moved) @ turning, means @ turning
    before = _shares_of(domains.labels, n_classes)
    same = _fitted(scores, places, before, is_free=False)
    plain = domains.head.scores(domains.target)
    starts = [before, softmax(plain, axis=1).mean(0), _shares_of(moved.argmax(1), n_classes)]
    if n_classes == 2:
        starts += [np.array([0.8, 0.2]), np.array([0.2, 0.8])]
    best = max((_fitted(scores, places, start, is_free=True) for start in starts), key=lambda each: each.log_likelihood)
    ratio = 2 * (best.log_likelihood - same.log_likelihood)
    is_another = chi2.sf(ratio, n_classes - 1) < _LEVEL and best.apart >= _LEAST_APART
    return best.shares if is_another else None


def weights(labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return float64 [N], mean 1: weights of images of these classes, int [N], that give them the mix `wanted` [C]."""
    found = (wanted / _shares_of(labels, len(wanted)))[labels]
    return np.asarray(found / found.mean())


def _held_out(domains: Domains) -> np.ndarray:
    """Return float64 [N, C]: scores of the source's images by heads that were not fitted on them."""
    folds = assign_folds(domains.labels, np.arange(len(domains.labels)), _FOLDS, 0)
    found = np.zeros((len(folds), domains.n_classes))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        found[held] = domains.fit(domains.source[~held], domains.labels[~held]).scores(domains.source[held])
    return found


def _centred(scores: np.ndarray) -> np.ndarray:
    """Return float64 [N, C - 1]: scores without what is common to all classes."""
    return np.asarray(scores - scores.mean(1, keepdims=True))[:, :-1]


def _shares_of(labels: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=n_classes) + 0.5
    return np.asarray(counts / counts.sum())


def _fitted(scores: np.ndarray, places: np.ndarray, start: np.ndarray, *, is_free: bool) -> Mixture:
    """Return the mixture for scores [M, C - 1]; the source's classes have unit spread and these places [C, C - 1].

    Its shares begin at `start`, and stay there unless they are free.
    """
    n_images, n_axes = scores.shape
    middle, found, apart, spread, last = scores.mean(0), start, 1.0, 1.0, -np.inf
    centre = middle - found @ places
    for _ in range(_STEPS):
        squares = np.square(scores[:, None] - centre - apart * places).sum(2)
        each = np.log(np.maximum(found, _TINY)) - squares / (2 * spread) - 0.5 * n_axes * np.log(spread)
        total = logsumexp(each, axis=1)
        likelihood = float(total.sum())
        if likelihood - last < _CLOSE:
            break
        last, posterior = likelihood, np.exp(each - total[:, None])
        counts = posterior.sum(0)
        if is_free:
            found = (counts + 0.5) / (n_images + 0.5 * len(counts))
        of_places = counts @ places / n_images
        off = places - of_places
        along = float((off * (posterior.T @ scores - counts[:, None] * middle)).sum())
        apart = max(0.05, along / max(float((counts[:, None] * off**2).sum()), 1e-9))
        centre = middle - apart * of_places
        squares = np.square(scores[:, None] - centre - apart * places).sum(2)
        spread = max(1e-3, float((posterior * squares).sum()) / (n_images * n_axes))
    return Mixture(likelihood, found, apart)
