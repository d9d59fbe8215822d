"""Backbones raced on growing parts of the images, so that hopeless ones are not run on all of them.

As successive halving (Jamieson & Talwalkar 2016), the parts double. As in Hoeffding races (Maron & Moore 1994), not a
fixed share is dropped but who is clearly behind: with few images all may stay, and the race saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from headstart.base.paired import Advantage, advantage

# Takes the number of a candidate and those of images; returns the criterion of each, float [n]: the lower the better.
Judge = Callable[[int, np.ndarray], np.ndarray]


class Result(NamedTuple):
    """A candidate at the end of its race."""

    number: int
    values: np.ndarray  # float [n], the criterion of each image of the last part that it saw
    n_images: int  # of that part
    is_out: bool  # before the last part
    behind: Advantage | None  # the leader of that part; positive where it is worse. None: it leads


def race(
    n_candidates: int,
    parts: Sequence[np.ndarray],
    groups: np.ndarray,
    judge: Judge,
    may_win: Collection[int],
) -> list[Result]:
    """Return how each candidate did, in their order.

    At the end of each part but the last, whoever is clearly behind the best that may win is out: by a paired test on
    the same images, one-sided at 5 % for all comparisons of the race together (Bonferroni). `groups` [N] of all images
    are kept whole by it. Candidates that may not win take part, and nobody is out because of them.
    """
    running, results = list(range(n_candidates)), dict[int, Result]()
    n_looks = max(1, (n_candidates - 1) * (len(parts) - 1))
    for part in parts:
        is_last = part is parts[-1]
        values = {number: judge(number, part) for number in running}
        leader = min((number for number in running if number in may_win), key=lambda each: values[each].mean())
        for number in running:
            lead = None if number == leader else advantage(values[number], values[leader], groups[part])
            is_out = not is_last and lead is not None and lead.is_clear(n_looks)
            results[number] = Result(number, values[number], len(part), is_out, lead)
        running = [number for number in running if not results[number].is_out]
    return [results[number] for number in range(n_candidates)]
