"""How good a way to adapt is, told without labels of the target: a figure for each image, the higher the better.

Figures of two ways on the same images are compared in pairs, so that their noise can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from headstart.adapting.methods import METHODS, Adapted, Domains
from headstart.adapting.mix import weights
from headstart.heads.folds import assign_folds

_FOLDS = 3
_LEAST = 1e-300
_SHARPNESS = 20.0  # 1 / temperature, of the similarities (Saito et al. 2021, section 3.2)

Tried = Mapping[str, Adapted]  # by name of a method
Criterion = Callable[[Domains, Tried], dict[str, np.ndarray]]


def importance(domains: Domains, tried: Tried) -> dict[str, np.ndarray]:
    """Return float64 [N] of each: log likelihoods of held-out source images, weighted by how like the target they are.

    Deep embedded validation (You et al. 2019): the weights are those of a classifier that tells the two sides apart by
    the head's scores, and a control variate takes off what they vary by.
    """
    folds = assign_folds(domains.labels, np.arange(len(domains.labels)), _FOLDS, 0)
    found = {name: np.zeros(len(domains.labels)) for name in tried}
    for fold in range(int(folds.max()) + 1):
        held, rows, labels = folds == fold, domains.source[folds != fold], domains.labels[folds != fold]
        own_weights = None if domains.weights is None else domains.weights[~held]
        some = replace(domains, source=rows, labels=labels, head=domains.fit(rows, labels), weights=own_weights)
        for name, values in found.items():
            own = METHODS[name](some)
            moved = domains.target if own.map is None else own.map(domains.target)
            here, there = (log_softmax(own.head.scores(side), axis=1) for side in (domains.source[held], moved))
            ratios = _ratios(here, there)
            product = -ratios * here[np.arange(len(here)), domains.labels[held]]
            varies = float(ratios.var())
            slope = -float(np.cov(product, ratios, bias=True)[0, 1]) / varies if varies > 0 else 0.0
            values[held] = -(product + slope * (ratios - 1))
    return found


def _ratios(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return float64 [N]: how much likelier each row of `here` is among those of `there`, about 1 in the mean."""
    rows = np.concatenate([here, there])
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    sides = np.repeat([0, 1], [len(here), len(there)])
    telling = LogisticRegression(class_weight="balanced", max_iter=200).fit(rows, sides)
    odds = np.exp(np.clip(telling.decision_function(rows[: len(here)]), -10, 10))
    found: np.ndarray = odds / odds.mean()
    return found


def reverse(domains: Domains, tried: Tried) -> dict[str, np.ndarray]:
    """Return float64 [N] of each: whether the way back gives source images their labels (Zhong et al. 2010).

    A head is fitted to the target with the labels that the adapted head guesses, then adapted to the source.
    """
    found = {}
    for name, adapted in tried.items():
        guessed = adapted.whole.scores(domains.target).argmax(1)
        head = domains.fit(domains.target, guessed)
        mix = np.bincount(domains.labels, minlength=domains.n_classes) / len(domains.labels)
        even = None if domains.weights is None else weights(guessed, mix)
        back = replace(domains, source=domains.target, labels=guessed, target=domains.source, head=head, weights=even)
        right = METHODS[name](back).whole.scores(domains.source).argmax(1) == domains.labels
        found[name] = right.astype(np.float64)
    return found


def density(domains: Domains, tried: Tried) -> dict[str, np.ndarray]:
    """Return float64 [M] of each: how many target images are answered alike (Saito et al. 2021)."""
    found = {}
    for name, adapted in tried.items():
        answers = softmax(adapted.whole.scores(domains.target), axis=1)
        units = answers / np.linalg.norm(answers, axis=1, keepdims=True)
        alike = units @ units.T * _SHARPNESS
        np.fill_diagonal(alike, -np.inf)
        shares = softmax(alike, axis=1)
        found[name] = -(shares * np.log(np.maximum(shares, _LEAST))).sum(1)
    return found


CRITERIA: Mapping[str, Criterion] = {each.__name__: each for each in (reverse, importance, density)}
OF_SOURCE = (
    reverse.__name__,
    importance.__name__,
)  # figures of source images; others have those of target ones
