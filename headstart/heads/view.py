"""What one may look at who chooses a head: candidates and their scores of held-out images, with or without a fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from headstart.base.paired import advantage
from headstart.heads import blend, members
from headstart.heads.calibration import TOO_HIGH, Calibration, Trial, calibrate, fit_temperature
from headstart.heads.criteria import CRITERIA
from headstart.heads.crossval import Division, Family
from headstart.heads.kinds import KINDS
from headstart.heads.members import Member
from headstart.onnx.backbone_folder import LAST

EVERYTHING = -1  # the part of the scores that looks at all folds

Name = tuple[str, str]  # of a kind and of levels


class Judged(NamedTuple):
    """A candidate as whoever chooses sees it."""

    name: Name
    members: tuple[Member, ...]
    order: tuple[float, ...]  # the simpler comes first
    temperature: float
    scored: Callable[[], np.ndarray]  # what `scores` returns; held for none but the few that need it
    values: np.ndarray  # float64 [n]: the criterion's
    calibration: Calibration | None = None  # of a settled one

    @property
    def scores(self) -> np.ndarray:
        """Float64 [n, C] of the images in view, calibrated."""
        return self.scored()

    @property
    def is_linear(self) -> bool:
        """Whether it is one Gemm."""
        return self.order[0] == 0

    @property
    def figure(self) -> float:
        """What it is compared by: the lower the better."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Scores:
    """A family and its out-of-fold scores, as `Division.empty` says."""

    family: Family
    of: np.ndarray


@dataclass(frozen=True)
class View:
    """All images of the cross-validation, or those that a choice without one fold looks at."""

    division: Division
    scores: Mapping[Name, Scores]  # of all families that have been fitted so far
    part: int  # the fold that is hidden, or EVERYTHING
    criterion: str  # a name of CRITERIA
    shift: np.ndarray  # float64 [C], added to calibrated scores
    _known: dict[Name, Judged] = field(default_factory=dict)

    @cached_property
    def seen(self) -> np.ndarray:
        """Bool [V]."""
        seen: np.ndarray = np.ones(len(self.division.fold_of), bool)
        return seen if self.part == EVERYTHING else np.isin(self.division.fold_of, self.division.inner(self.part))

    @cached_property
    def hidden(self) -> np.ndarray:
        """Bool [V]: the images of the part."""
        hidden: np.ndarray = self.division.fold_of == self.part
        return hidden

    @cached_property
    def labels(self) -> np.ndarray:
        """Int [n]."""
        labels: np.ndarray = self.division.labels[self.seen]
        return labels

    @cached_property
    def groups(self) -> np.ndarray:
        """[n]."""
        groups: np.ndarray = self.division.groups[self.seen]
        return groups

    @cached_property
    def levels_for_costly_kinds(self) -> set[str]:
        """Names of sets of levels: the best closed form's, and `last` unless closed forms are clearly worse on it.

        Clearly: by more than two standard errors. All sets, if there is no closed form.
        """
        closed = [self.best(name) for name, each in self.scores.items() if not each.family.kind.IS_COSTLY]
        if not closed:
            return {each.family.levels.name for each in self.scores.values()}
        best = min(closed, key=lambda each: each.figure)
        on_last = min((each for each in closed if each.name[1] == LAST), key=lambda each: each.figure, default=best)
        lead = advantage(on_last.values, best.values, self.groups)
        return {best.name[1], on_last.name[1]} if lead.mean <= 2 * lead.standard_error else {best.name[1]}

    def each_strength(self, name: Name) -> list[Judged]:
        """Return all candidates of a family, the strongest first."""
        family, of = self.scores[name].family, self.scores[name].of
        return [self._single(family, row, of[self.part, row]) for row in range(len(family.strengths))]

    def best(self, name: Name) -> Judged:
        """Return the best of a family, in a tie the stronger."""
        if name not in self._known:
            self._known[name] = min(self.each_strength(name), key=lambda each: round(each.figure, 6))
        return self._known[name]

    def candidates(self, with_blend: bool) -> list[Judged]:
        """Return the best of each family that may be chosen, and their blend."""
        allowed = self.levels_for_costly_kinds
        tried = []
        for name, each in self.scores.items():
            if not each.family.kind.IS_COSTLY or each.family.levels.name in allowed:
                tried.append(self.best(name))
        blended = self._blended([each for each in tried if each.is_linear]) if with_blend else None
        return [*tried, blended] if blended else tried

    def simplest(self, tried: Sequence[Judged]) -> Judged:
        """Return the simplest of those whose criterion is within one standard error of the lowest."""
        lowest = min(tried, key=lambda each: each.figure)
        leads = [(each, advantage(each.values, lowest.values, self.groups)) for each in tried]
        good = [each for each, lead in leads if each is lowest or lead.mean <= lead.standard_error]
        return min(good, key=lambda each: each.order)

    def hidden_scores(self, chosen: Judged) -> np.ndarray:
        """Return float64 [n hidden, C]: a candidate's calibrated scores of the images of the part."""
        scores: np.ndarray = self._mixed(chosen, self.part)[self.hidden] / chosen.temperature + self.shift
        return scores

    def settled(self, chosen: Judged) -> Judged:
        """Return a candidate with the temperature that it may ship with, and why; see `calibrate`."""
        raw = (chosen.scores - self.shift) * chosen.temperature
        found = calibrate(raw, self.labels, self._trials(chosen, raw))
        settled = self._at(found.temperature, chosen.name, chosen.members, chosen.order, lambda: raw)
        return settled._replace(calibration=found)

    def _trials(self, chosen: Judged, raw: np.ndarray) -> Iterator[Trial]:
        """Yield a trial for each fold.

        The head that ships learns from more images than those of the folds, which may make its scores larger. So where
        heads were fitted without two folds each, temperatures are fitted on theirs and tried on those without one.
        """
        fold_of = self.division.fold_of[self.seen]
        for fold in np.unique(fold_of):
            hidden, scores = fold_of == fold, raw
            others = ~hidden
            if self.part == EVERYTHING and self.division.is_nested and self._is_fitted(chosen, fold):
                scores, others = self._mixed(chosen, fold), np.isin(fold_of, self.division.inner(fold))
            yield scores[others], self.labels[others], scores[hidden], self.labels[hidden]

    def _is_fitted(self, chosen: Judged, part: int) -> bool:
        return all(of.of[part, row].any() for _, of, row in self._rows(chosen))

    def _mixed(self, chosen: Judged, part: int) -> np.ndarray:
        """Return float64 [V, C]: the scores of a part, before the temperature of the candidate."""
        total = np.zeros((len(self.seen), self.division.n_classes))
        for member, of, row in self._rows(chosen):
            total += member.weight / member.temperature * of.of[part, row]
        return total

    def _rows(self, chosen: Judged) -> Iterator[tuple[Member, Scores, int]]:
        for member in chosen.members:
            of = next(each for each in self.scores.values() if each.family.has(member.kind, member.levels))
            yield member, of, of.family.strengths.index(member.strength)

    def _blended(self, some: Sequence[Judged]) -> Judged | None:
        """Return the blend of candidates, its weights of each fold chosen without it; None if it is a single one."""
        if len(some) < 2:
            return None
        scores = np.stack([each.scores - self.shift for each in some])
        weights = blend.weights(scores, self.labels)
        if (weights > 0).sum() < 2:
            return None
        mixed, fold_of = np.zeros(scores.shape[1:]), self.division.fold_of[self.seen]
        for fold in np.unique(fold_of):
            held_out = fold_of == fold
            of_others = blend.weights(scores[:, ~held_out], self.labels[~held_out])
            mixed[held_out] = np.einsum("m,mnc->nc", of_others, scores[:, held_out])
        parts = [
            each.members[0]._replace(temperature=each.temperature, weight=float(weight))
            for each, weight in zip(some, weights, strict=True)
            if weight > 0
        ]
        width = len(members.columns_of(parts))
        return self._judged((blend.NAME, "of several"), tuple(parts), (0.0, width, 1.0, 0.0, 0.0), lambda: mixed)

    def _single(self, family: Family, row: int, scores: np.ndarray) -> Judged:
        kind, levels, strength = family.kind, family.levels, family.strengths[row]
        member = Member(kind.NAME, levels.levels, levels.columns, strength, 1.0, 1.0)
        number = list(KINDS).index(kind.NAME)
        order = (float(not kind.IS_LINEAR), len(levels.columns), 0.0, float(number), -strength)
        return self._judged(family.name, (member,), order, lambda: scores[self.seen].astype(np.float64))

    def _judged(
        self, name: Name, parts: tuple[Member, ...], order: tuple[float, ...], raw: Callable[[], np.ndarray]
    ) -> Judged:
        # Without caution, which would favour heads that are sure of everything where a few images are all right.
        temperature = fit_temperature(raw(), self.labels)
        return self._at(temperature if temperature < TOO_HIGH else 1.0, name, parts, order, raw)

    def _at(
        self,
        temperature: float,
        name: Name,
        parts: tuple[Member, ...],
        order: tuple[float, ...],
        raw: Callable[[], np.ndarray],
    ) -> Judged:
        """Return a candidate with the scores that `raw` returns, [n, C], at a temperature."""

        def scored() -> np.ndarray:
            adjusted: np.ndarray = raw() / temperature + self.shift
            return adjusted

        compared = raw() / temperature if self.criterion == "log_loss" else scored()  # which is for other priors
        return Judged(name, parts, order, temperature, scored, CRITERIA[self.criterion](compared, self.labels))
