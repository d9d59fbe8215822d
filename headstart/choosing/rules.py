"""Rules that put images without labels in the order in which their labels help most.

Each takes the features of the candidates and what the head says of them, and knows the features of labelled images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Rule = Literal["random", "margin", "diverse margin", "badge", "core-set"]
RULES: tuple[Rule, ...] = get_args(Rule)
_POOL = 5  # times as many of the smallest margin, among which `diverse margin` chooses
_SPARE = 3  # times as many are ranked, since some are copies, or too many of one class
_BLOCK = 4096


class Candidates(NamedTuple):
    """N images without labels."""

    features: np.ndarray  # float32 [N, D]
    probabilities: np.ndarray  # float [N, C], calibrated


class Chosen(NamedTuple):
    """The images to label, the most helpful first."""

    rows: list[int]
    n_ranked: int  # images among which they were chosen
    n_copies: int  # of these, that were left out as copies


def chosen(
    rule: Rule,
    images: Candidates,
    known: np.ndarray,
    n: int,
    seed: int,
    distinct: Callable[[np.ndarray], Sequence[int]] | None = None,
) -> Chosen:
    """Return up to `n` images by a rule, of which no guessed class is most; `headstart next` and its benchmark use it.

    `known`: as for `order`. `distinct`: rows int [R] in the order of their rank -> the numbers of those to keep.
    """
    ranked = order(rule, images, known, _SPARE * n, seed, wanted=n)
    left = [int(row) for row in ranked] if distinct is None else [int(ranked[number]) for number in distinct(ranked)]
    guesses, n_classes = images.probabilities.argmax(1), images.probabilities.shape[1]
    rows = left[:n] if rule == "random" else balanced(left, guesses, n, n_classes)
    return Chosen(rows, len(ranked), len(ranked) - len(left))


def order(
    rule: Rule, images: Candidates, known: np.ndarray, n: int, seed: int, wanted: int | None = None
) -> np.ndarray:
    """Return the rows of the `n` images to label first, int [n]; all of them where there are fewer.

    `known` float32 [M, D]: the features of labelled images, of which `core-set` keeps its distance. `wanted`: how many
    will be labelled, where more are ranked; it bounds the pool of `diverse margin`.
    """
    draw = np.random.default_rng(seed)
    pool_size = max(_POOL * (wanted or n), n)
    n = min(n, len(images.features))
    if rule == "random":
        return draw.permutation(len(images.features))[:n]
    if rule == "margin":
        return np.argsort(margins(images.probabilities), kind="stable")[:n]
    if rule == "core-set":
        return _core_set(_unit(images.features), _unit(known), n, draw)
    if rule == "badge":
        return _plus_plus(_gradients(images), n, draw)
    pool = np.argsort(margins(images.probabilities), kind="stable")[:pool_size]
    drawn: np.ndarray = pool[_plus_plus([_unit(images.features[pool])], n, draw)]
    return drawn


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Return float [N]: by how much the most probable class leads the next (Scheffer et al. 2001)."""
    best = np.sort(probabilities.astype(np.float64), axis=1)
    lead: np.ndarray = best[:, -1] - best[:, -2]
    return lead


def _gradients(images: Candidates) -> list[np.ndarray]:
    """Return the two factors of each image's gradient embedding (Ash et al. 2020, BADGE): (p - guess) and features.

    The embedding is their outer product. Inner products of two are products of those of the factors, so it is never
    written out.
    """
    away = images.probabilities.astype(np.float64).copy()
    away[np.arange(len(away)), away.argmax(1)] -= 1
    return [away, _unit(images.features)]


def _plus_plus(factors: Sequence[np.ndarray], n: int, draw: np.random.Generator) -> np.ndarray:
    """Return rows by k-means++ (Arthur & Vassilvitskii 2007) on the outer products of factors, each [N, .]."""
    squares = np.prod([(each**2).sum(1) for each in factors], axis=0)
    chosen = [int(squares.argmax())]
    nearest = np.full(len(squares), np.inf)
    while len(chosen) < n:
        last = chosen[-1]
        products = np.prod([each @ each[last] for each in factors], axis=0)
        nearest = np.minimum(nearest, np.maximum(squares + squares[last] - 2 * products, 0))
        nearest[chosen] = 0
        total = nearest.sum()
        if total > 0:
            chosen.append(int(draw.choice(len(nearest), p=nearest / total)))
        else:  # what is left is the same as what is chosen
            chosen.append(int(draw.choice(np.setdiff1d(np.arange(len(nearest)), chosen))))
    return np.array(chosen)


def _core_set(rows: np.ndarray, known: np.ndarray, n: int, draw: np.random.Generator) -> np.ndarray:
    """Return rows so that each is the farthest from all labelled and chosen ones (Sener & Savarese 2018, greedy)."""
    nearest = np.full(len(rows), np.inf)
    for start in range(0, len(known), _BLOCK):
        nearest = np.minimum(nearest, (2 - 2 * rows @ known[start : start + _BLOCK].T).min(1))
    chosen: list[int] = []
    if not len(known):
        chosen.append(int(draw.integers(len(rows))))
        nearest = 2 - 2 * rows @ rows[chosen[0]]
    while len(chosen) < n:
        nearest[chosen] = -np.inf
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, 2 - 2 * rows @ rows[chosen[-1]])
    return np.array(chosen)


def _unit(rows: np.ndarray) -> np.ndarray:
    values = rows.astype(np.float64)
    unit: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit


def balanced(ranked: Sequence[int], guesses: np.ndarray, n: int, n_classes: int) -> list[int]:
    """Return `n` of the ranked rows, of which no guessed class has more than twice its even share, if others are left.

    `guesses` int [N]: the class that the head names.
    """
    most = max(1, -(-2 * n // n_classes))
    taken: list[int] = []
    rest: list[int] = []
    counts = np.zeros(n_classes, int)
    for row in ranked:
        if len(taken) < n and counts[guesses[row]] < most:
            counts[guesses[row]] += 1
            taken.append(int(row))
        else:
            rest.append(int(row))
    return [*taken, *rest][:n]
