"""A batch of images beside the held-out ones: are they alike, which classes are there, how often is the model right?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headstart.monitoring.reference import DECIMALS, Reference

_Z = 1.959963984540054  # of a 95 % interval
_N_PERMUTATIONS = 499
_MAX_ROWS = 1000
_WIDTHS = (0.5, 1.0, 2.0)  # of the kernels, times the median distance
_EM_STEPS = 100
_FEWEST = 2  # images for a two-sample test
_BUDGET = 4e8  # products for all resamples of the class mix


class TwoSample(NamedTuple):
    """The maximum mean discrepancy between a batch and the held-out images."""

    mmd2: float  # unbiased; about 0 where the two are alike
    p_value: float  # the chance of such a one or a larger one where they are. Of this one look


class Share(NamedTuple):
    """The share of a class in a batch, with a 95 % interval."""

    share: float
    low: float
    high: float


class Accuracy(NamedTuple):
    """An accuracy that is estimated without labels, with a 95 % interval of sampling alone."""

    accuracy: float
    low: float
    high: float


def two_sample(rows: np.ndarray, known: np.ndarray, seed: int) -> TwoSample | None:
    """Return whether rows [N, F] and known [M, F] come from one distribution; None with fewer than 2 of either.

    MMD with a sum of Gaussian kernels of 0.5, 1 and 2 times the median distance (Gretton et al. 2012, sections 4.2 and
    8.1), by 499 permutations, so exact for any number of images: values are scaled by all of them together, whichever
    are new, and rounded as the known ones were for their file. Of more than 1,000 rows a sample is taken.
    """
    draw = np.random.default_rng(seed)
    if min(len(rows), len(known)) < _FEWEST:
        return None
    rows = rows[np.sort(draw.permutation(len(rows))[:_MAX_ROWS])]
    values = np.round(np.concatenate([rows, known]), DECIMALS)
    values = np.clip((values - values.mean(0)) / np.maximum(values.std(0), 1e-3), -20, 20)
    squares = (values**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0)
    median = max(float(np.median(distances[np.triu_indices(len(values), 1)])), 1e-12)
    kernel = np.zeros_like(distances)
    for width in _WIDTHS:
        kernel += np.exp(-distances / (2 * median * width**2))
    np.fill_diagonal(kernel, 0)
    n_rows, n_all = len(rows), len(values)
    sides = np.zeros((n_all, _N_PERMUTATIONS + 1))
    sides[:n_rows, 0] = 1
    for number in range(1, _N_PERMUTATIONS + 1):
        sides[draw.permutation(n_all)[:n_rows], number] = 1
    near = kernel @ sides
    own = (sides * near).sum(0)
    other = ((1 - sides) * (kernel.sum(1)[:, None] - near)).sum(0)
    between = (kernel.sum() - own - other) / 2
    n_known = n_all - n_rows
    found = own / (n_rows * (n_rows - 1)) + other / (n_known * (n_known - 1)) - 2 * between / (n_rows * n_known)
    as_large = int((found[1:] >= found[0] - 1e-12).sum())
    return TwoSample(float(found[0]), (1 + as_large) / (_N_PERMUTATIONS + 1))


def class_mix(probabilities: np.ndarray, before: np.ndarray, seed: int) -> list[Share]:
    """Return the share of each class in a batch, by its calibrated probabilities [N, C] and the shares before [C].

    Maximum likelihood by EM, where only the mix has changed and not what each class looks like (Saerens et al. 2002).
    The intervals are percentiles over resampled images.
    """
    draw = np.random.default_rng(seed)
    prior = np.maximum(before, 1e-6) / np.maximum(before, 1e-6).sum()
    ratios = probabilities.astype(np.float64) / prior
    n_images = len(ratios)
    found = mix_by_em(ratios, prior, np.full(n_images, 1 / n_images), _EM_STEPS)
    steps = 25
    n_resamples = int(np.clip(_BUDGET / (ratios.size * steps), 20, 200))
    weights = draw.multinomial(n_images, np.full(n_images, 1 / n_images), n_resamples) / n_images
    drawn = np.array([mix_by_em(ratios, found, weight, steps) for weight in weights])
    lows, highs = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [
        Share(float(share), min(float(low), float(share)), max(float(high), float(share)))
        for share, low, high in zip(found, lows, highs, strict=True)
    ]


def mix_by_em(ratios: np.ndarray, shares: np.ndarray, weights: np.ndarray, n_steps: int) -> np.ndarray:
    """Return shares [C] after so many steps from `shares`, for images of these weights, which sum to 1."""
    shares = np.maximum(shares, 1e-9)
    for _ in range(n_steps):
        posterior = ratios * shares
        posterior /= np.maximum(posterior.sum(1, keepdims=True), 1e-300)
        shares = weights @ posterior
    return shares


def accuracy(highest: np.ndarray, known: Reference) -> Accuracy:
    """Return the accuracy that the confidences [N] of a batch promise: as much below the held-out one as they are.

    The difference of confidences (Guillory et al. 2021). Right where probabilities are as calibrated as on held-out
    images; where these are of another kind, the model may be surer than it is right.
    """
    value = known.accuracy + float(highest.mean()) - known.confidence
    spread = known.accuracy * (1 - known.accuracy) + known.confidence_variance
    half = _Z * (float(highest.var()) / len(highest) + spread / known.n_images) ** 0.5
    value, low, high = (float(np.clip(each, 0, 1)) for each in (value, value - half, value + half))
    return Accuracy(value, low, high)
