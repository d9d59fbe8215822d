"""Scores of held-out images by heads that were fitted without them.

Each fold is left out alone, and pairs of folds together. A head fitted without folds i and j tells of fold j to
whoever chooses without looking at fold i, and of fold i to whoever chooses without fold j. So choosing anew within
every outer fold (nested cross-validation, Varma & Simon 2006) takes half of the fits that it would take otherwise.
Where images are many, not every pair is left out: each choice still looks at `ENOUGH` images or more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from headstart.base.cores import n_cores
from headstart.heads.calibration import fit_temperature, log_loss
from headstart.heads.contract import Advance, Kind, Training
from headstart.heads.design import Design, Source
from headstart.heads.level_sets import LevelSet

ENOUGH = 1_500  # images that a choice within an outer fold looks at; of more, only those of neighbouring folds


@dataclass(frozen=True)
class Family:
    """Candidates of one kind that read the same levels. They differ in their strength alone."""

    kind: Kind
    levels: LevelSet
    strengths: tuple[float, ...]  # the strongest first

    @property
    def name(self) -> tuple[str, str]:
        """The kind and the levels."""
        return self.kind.NAME, self.levels.name

    def has(self, kind: str, levels: tuple[str, ...]) -> bool:
        """Return whether heads of this kind on these levels are of this family."""
        return (kind, levels) == (self.kind.NAME, self.levels.levels)


@dataclass(frozen=True)
class Division:
    """The images of a cross-validation and their folds."""

    source: Source
    n_classes: int
    validated: np.ndarray  # int [V], numbers of the source's images
    fold_of: np.ndarray  # int [V]
    is_nested: bool  # whether pairs of folds are left out too
    others: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # images that are learned from alone
    fold_of_others: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def inner(self, part: int) -> list[int]:
        """Return the folds that a choice without fold `part` looks at: all others, or its neighbours in a circle.

        With neighbours alone, there are as few on either side as have `ENOUGH` images together.
        """
        n_each_side = math.ceil(ENOUGH * self.n_folds / (2 * len(self.validated)))
        if 2 * n_each_side >= self.n_folds - 1:
            return [fold for fold in range(self.n_folds) if fold != part]
        steps = [*range(-n_each_side, 0), *range(1, n_each_side + 1)]
        return sorted((part + step) % self.n_folds for step in steps)

    @property
    def labels(self) -> np.ndarray:
        """Int [V]."""
        labels: np.ndarray = self.source.labels[self.validated]
        return labels

    @property
    def groups(self) -> np.ndarray:
        """[V]."""
        groups: np.ndarray = self.source.groups[self.validated]
        return groups

    @property
    def n_folds(self) -> int:
        """K."""
        return int(self.fold_of.max()) + 1

    def learned(self, folds: Sequence[int]) -> np.ndarray:
        """Return the numbers of the images that heads without these folds are fitted on."""
        scored = self.validated[~np.isin(self.fold_of, folds)]
        if not len(self.others):
            return scored
        return np.sort(np.concatenate([scored, self.others[~np.isin(self.fold_of_others, folds)]]))

    def left_out(self) -> list[tuple[int, ...]]:
        """Return what heads are fitted without: each fold and, if nested, each pair of folds that tells something."""
        single = [(fold,) for fold in range(self.n_folds)]
        pairs = itertools.combinations(range(self.n_folds), 2) if self.is_nested else ()
        return [*single, *(pair for pair in pairs if pair[0] in self.inner(pair[1]))]

    def empty(self, family: Family) -> np.ndarray:
        """Return the array that `fill` fills for a family: float32 [K + 1, S, V, C].

        Its last part has the scores of each image by heads that were fitted without its fold. Part i is for whoever
        chooses without fold i: images of its inner folds by heads fitted without their fold and without fold i, and
        images of fold i by heads fitted without fold i.
        """
        n_parts = self.n_folds + 1 if self.is_nested else 1
        return np.zeros((n_parts, len(family.strengths), len(self.validated), self.n_classes), np.float32)


def fill(
    division: Division,
    scores: Sequence[tuple[Family, np.ndarray, Collection[tuple[int, ...]]]],
    training: Training,
    at_a_time: int,
    advance: Advance,
) -> None:
    """Fit families without the folds that are named beside each, and write their scores into its array."""
    reached: dict[tuple[tuple[str, str], int], int] = {}  # the last strength that a part had fitted, by family
    lock = Lock()

    def leave_out(folds: tuple[int, ...]) -> None:
        wanted = [(family, into) for family, into, jobs in scores if folds in jobs]
        if not wanted:
            return
        threads = max(1, n_cores() // at_a_time)
        design = Design(division.source, division.learned(folds), hold=True, n_threads=threads)
        rows = {fold: division.source.read(division.validated[division.fold_of == fold]) for fold in folds}
        for _, same in itertools.groupby(wanted, lambda each: each[0].levels.name):
            some = list(same)
            columns = some[0][0].levels.columns
            part, seen = design.at(columns), {fold: each[:, columns] for fold, each in rows.items()}
            for family, into in some:
                readers = _readers(division, family, folds, reached)
                _fit_path(division, family, part, readers, seen, training, into)
                with lock:
                    for reader in readers:
                        key = family.name, reader.part
                        reached[key] = max(reached.get(key, 0), reader.last)
                advance(1)

    with ThreadPoolExecutor(at_a_time) as pool:
        for together in (2, 1):  # pairs first: they say how far the paths of the others have to go
            list(pool.map(leave_out, [folds for folds in division.left_out() if len(folds) == together]))


@dataclass
class _Reader:
    """Who reads scores of a fold, and for how long.

    A path of a costly kind ends where the calibrated loss of the fold has risen twice in a row, since weaker penalties
    take the most steps and do worse still; the strengths that are left have the scores of the last. Whoever chooses
    without the fold may not be told by its labels: there the path ends with those of the pairs of folds.
    """

    part: int
    fold: int
    labels: np.ndarray | None  # int [n] of the fold; None: they are hidden
    until: int  # the strength at which it may end
    last: int = -1  # that it has read
    lowest: float = np.inf
    n_risen: int = 0

    @property
    def is_done(self) -> bool:
        return self.last >= self.until if self.labels is None else self.n_risen == 2

    def read(self, row: int, scores: np.ndarray) -> None:
        self.last = row
        if self.labels is not None:
            loss = log_loss(scores / fit_temperature(scores, self.labels), self.labels)
            self.n_risen = self.n_risen + 1 if loss > self.lowest else 0
            self.lowest = min(self.lowest, loss)


def _readers(
    division: Division, family: Family, folds: tuple[int, ...], reached: dict[tuple[tuple[str, str], int], int]
) -> list[_Reader]:
    """Return who reads the scores by heads that were fitted without these folds."""
    whole = len(family.strengths)
    parts = [(one, other) for one in folds for other in folds if one != other]
    if len(folds) == 1:
        parts = [(-1, folds[0]), (folds[0], folds[0])] if division.is_nested else [(-1, folds[0])]
    readers = []
    for part, fold in parts:
        is_hidden, is_whole = part == fold, not family.kind.IS_COSTLY
        until = reached.get((family.name, part), whole) if is_hidden and not is_whole else whole
        labels = None if is_hidden or is_whole else division.labels[division.fold_of == fold]
        readers.append(_Reader(part, fold, labels, until))
    return readers


def _fit_path(
    division: Division,
    family: Family,
    design: Design,
    readers: Sequence[_Reader],
    rows: Mapping[int, np.ndarray],
    training: Training,
    into: np.ndarray,
) -> None:
    """Fit a family, and write what its heads say of the rows of each fold for each reader."""
    for row, head in enumerate(family.kind.fit_path(design, division.n_classes, family.strengths, training)):
        some = {fold: head.scores(seen).astype(np.float32) for fold, seen in rows.items()}
        for reader in readers:
            if not reader.is_done:
                into[reader.part][row:, division.fold_of == reader.fold] = some[reader.fold]
                reader.read(row, some[reader.fold])
        if all(reader.is_done for reader in readers):
            return
