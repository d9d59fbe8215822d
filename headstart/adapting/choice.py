"""Which way to adapt, if any: tried, compared and doubted without labels of the target.

First, is there anything to adapt to? A classifier tries to tell the target from the source within guessed classes
(`auditing.shift`). Where it cannot, another mix of classes is all that may have changed: features stay as they are, and
`label_shift` alone is tried. Where it can, the assumption of `label_shift` fails, and all others are tried.
Then, is it better? The best by a criterion is taken if its figures are higher than those of the head as it is by more
than their noise: a one-sided test at 5 % on the same images, corrected for the number of ways that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from headstart.adapting.criteria import CRITERIA, OF_SOURCE
from headstart.adapting.methods import METHODS, Adapted, Domains, label_shift, none
from headstart.adapting.mix import shares, weights
from headstart.auditing.shift import two_sample
from headstart.base.paired import Advantage, advantage

NONE, LABEL_SHIFT = none.__name__, label_shift.__name__
FEWEST = 20  # images of the target
LEVEL = 0.01  # of the test whether the two sides differ


class Figure(NamedTuple):
    """What the criterion says of a way to adapt, beside the head as it is."""

    method: str
    score: float  # mean of the criterion's figures of the images, the higher the better
    gain: float  # by how much it is higher
    standard_error: float  # of the gain, by the differences on the same images, groups kept whole


class Choice(NamedTuple):
    """The way that was chosen, and why."""

    method: str  # a name of METHODS
    adapted: Adapted
    figures: tuple[Figure, ...]  # the head as it is first; empty where nothing was tried
    auc: float | None  # of a classifier that tells the sides apart within classes; None where images are too few
    p_value: float | None  # the chance of so high an AUC where they are alike
    why: str


def choose(
    domains: Domains, levels: Sequence[slice], groups: np.ndarray, methods: Sequence[str], choose_by: str, seed: int
) -> Choice:
    """Return the best of `methods` by the criterion `choose_by`, or none.

    `levels`: the columns of each level of the features; `groups` [N] of the source's images.
    """
    as_it_is = Adapted(domains.head)
    if len(domains.target) < FEWEST:
        why = f"{len(domains.target)} images without labels are too few to adapt to: {FEWEST} or more are needed."
        return Choice(NONE, as_it_is, (), None, None, why)
    apart = _apart(domains, levels, groups, seed)
    if apart is None:
        return Choice(
            NONE, as_it_is, (), None, None, "There are too few images with labels to tell whether they differ."
        )
    auc, p_value = apart
    differs = p_value <= LEVEL
    told = f"p = {p_value:.3f}"
    tried = [name for name in methods if name != NONE and (name == LABEL_SHIFT) != differs]
    alike = f"Within classes the images without labels look like those with labels ({told})"
    if not tried:
        why = f"{alike}." if not differs else f"They look otherwise ({told}), and adapt.methods moves no features."
        return Choice(NONE, as_it_is, (), auc, p_value, why)
    mix = shares(domains) if differs else None
    if mix is not None:
        domains = replace(domains, weights=weights(domains.labels, mix))
    found = {name: METHODS[name](domains) for name in (NONE, *tried)}
    values = CRITERIA[choose_by](domains, found)
    of_image = groups if choose_by in OF_SOURCE else np.arange(len(domains.target))
    figures = tuple(_figure(name, values, of_image) for name in found)
    clear = [each for each in figures[1:] if Advantage(each.gain, each.standard_error).is_clear(len(tried))]
    best = max(clear or figures[1:], key=lambda each: each.gain)
    gain = f"{best.gain:+.3f}, standard error {best.standard_error:.3f}"
    looks = f"They look otherwise ({told})" if differs else f"{alike}, so only another mix of classes was tried"
    looks += ", and their mix of classes is another one, which was allowed for" if mix is not None else ""
    if not clear:
        why = f"{looks}; no way to adapt is better than none by more than chance: the best, {best.method}, by {gain}."
        return Choice(NONE, as_it_is, figures, auc, p_value, why)
    why = f"{looks}; {best.method} is better than none by more than chance: by {gain}."
    return Choice(best.method, found[best.method], figures, auc, p_value, why)


def _apart(domains: Domains, levels: Sequence[slice], groups: np.ndarray, seed: int) -> tuple[float, float] | None:
    """Return how well a classifier tells the sides apart within guessed classes: the AUC and its p-value."""
    both = np.concatenate([domains.source, domains.target])
    is_target = np.repeat([False, True], [len(domains.source), len(domains.target)])
    _, source_groups = np.unique(groups, return_inverse=True)
    own = np.concatenate([source_groups, len(domains.source) + np.arange(len(domains.target))])
    # guessed on both sides: true labels on one alone would themselves differ from the other's
    guessed = domains.head.scores(both).argmax(1)
    found = two_sample(both, levels, guessed, own, is_target, seed)
    return None if found is None else (found.auc, found.p_value)


def _figure(name: str, values: dict[str, np.ndarray], groups: np.ndarray) -> Figure:
    lead = advantage(-values[NONE], -values[name], groups)
    return Figure(name, float(values[name].mean()), lead.mean, lead.standard_error)
