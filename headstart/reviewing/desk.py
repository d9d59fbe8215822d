"""Where people decide: reviewed.csv, written at once, and the steps that can be undone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from headstart import reviewed
from headstart.base.errors import DataError, count_and_name, did_you_mean
from headstart.reviewed import Decision, Grouping
from headstart.reviewing.answers import Answer, Changes, Decisions, answered, changes, stays, together
from headstart.reviewing.cases import Case, Cases


class ChangedError(DataError):
    """Another page or process has decided meanwhile."""


class Step(NamedTuple):
    """A step that can be undone."""

    number: int  # of the finding
    before: Changes
    after: Changes


class Done(NamedTuple):
    """What a step has changed in reviewed.csv."""

    changed: Changes
    number: int  # of the finding


class Desk:
    """The decisions of one session. Several threads may use it, and other processes may change the file."""

    def __init__(self, cases: Cases, file: Path) -> None:
        self.cases, self.file = cases, file
        self._steps: list[Step] = []
        self._lock = Lock()

    @property
    def n_steps(self) -> int:
        """How many steps can be undone."""
        return len(self._steps)

    def decisions(self) -> dict[str, Decision]:
        """Return what is decided, as the file says now."""
        return reviewed.read(self.file)

    def decide(
        self, number: int, answer: Answer, shown: Mapping[str, Decision | None] | None = None, may_be_new: bool = False
    ) -> Done:
        """Write what an answer to a finding means.

        `shown`: the decisions about its images that the person saw. ChangedError, and nothing is written, if they are
        others now. DataError for a label that is no class, unless it `may_be_new`.
        """
        case = self.cases.all[number]
        if answer.action in ("label", "label other"):
            check_label(answer.label, self.cases, may_be_new)
        with self._lock, reviewed.changing(self.file) as decisions:
            other = [each for each, decision in (shown or {}).items() if decisions.get(each) != decision]
            if other:
                raise ChangedError(f"{_named(self.cases, other)} was decided elsewhere meanwhile. Look at it again.")
            new = changes(self.cases, decisions, case, answer)
            new = {each: decision for each, decision in new.items() if decisions.get(each) != decision}
            before = {each: decisions.get(each) for each in new}
            _change(decisions, new)
            if new:
                self._steps.append(Step(number, before, new))
        return Done(new, number)

    def undo(self) -> Done | None:
        """Take the last step back; None if there is none.

        ChangedError if another process has changed a decision of it since; the step then stays and is forgotten.
        """
        with self._lock, reviewed.changing(self.file) as decisions:
            if not self._steps:
                return None
            step = self._steps.pop()
            if other := [each for each, decision in step.after.items() if decisions.get(each) != decision]:
                raise ChangedError(f"{_named(self.cases, other)} was decided elsewhere since. It stays as it is now.")
            _change(decisions, step.before)
        return Done(step.before, step.number)


class Accepted(NamedTuple):
    """What was decided for many images at once."""

    n_groups: int
    n_images: int
    n_left: int  # that somebody wants to stay as they are, or dropped
    n_small: int  # that stay as they are because a class would have too few groups for all splits


def accept_leaks(cases: Cases, file: Path) -> Accepted:
    """Put each cluster of near-identical images that lie in several splits together, unless its leaks are decided."""
    with reviewed.changing(file) as decisions:
        open_cases = [case for case in cases.all if case.finding.kind == "leak" and answered(case, decisions) is None]
        first: dict[tuple[str, ...], Case] = {}
        for case in open_cases:
            first.setdefault(case.cluster, case)
        wanted = {cluster: set(_open(case, open_cases, decisions)) for cluster, case in first.items()}
        return _accept(cases, decisions, wanted, "alike")


def accept_groups(cases: Cases, file: Path) -> Accepted:
    """Make each proposed group one, but for images that somebody wants to stay as they are."""
    with reviewed.changing(file) as decisions:
        alike = {image_id for case in cases.all for image_id in case.cluster}
        stay = {each for each, decision in decisions.items() if each in alike and stays(decision)}
        wanted = {tuple(members): set(members) - stay for members in cases.proposed}
        return _accept(cases, decisions, wanted, "series")


def _open(case: Case, open_cases: list[Case], decisions: Decisions) -> list[str]:
    """Return the images of a cluster to put together: the findings that are open, and those that `together` names."""
    mine = {
        image_id
        for each in open_cases
        if each.cluster == case.cluster
        for image_id in (each.finding.image_id, each.finding.other_image_id)
    }
    return [image_id for image_id in case.cluster if image_id in mine or image_id in together(case, decisions)]


def _accept(
    cases: Cases, decisions: dict[str, Decision], wanted: Mapping[tuple[str, ...], set[str]], name: str
) -> Accepted:
    grouping = Grouping(cases.images, decisions)
    n_groups, n_left, n_small, new = 0, 0, 0, dict[str, Decision]()
    for members, some in wanted.items():
        if not grouping.leaves_enough(some):
            n_small += len(some)
            continue
        joined = grouping.join(some, name)
        n_left += sum(1 for each in members if each not in joined)
        n_groups += bool(joined)
        new |= joined
    n_images = sum(decisions.get(each) != decision for each, decision in new.items())
    decisions |= new
    return Accepted(n_groups if n_images else 0, n_images, n_left, n_small)


def check_label(label: str, cases: Cases, may_be_new: bool) -> None:
    """Raise DataError unless a label is a class; if it `may_be_new`, unless it can be one."""
    if not label.strip():
        raise DataError("no label is given. The name of a class was expected.")
    if label not in cases.classes and not may_be_new:
        hint = did_you_mean(label, cases.classes)
        raise DataError(f"'{label[:80]}' is no class so far.{hint} One of {_some(cases)} was expected.")


def _some(cases: Cases) -> str:
    return count_and_name(cases.classes, 8)


def _named(cases: Cases, image_ids: list[str]) -> str:
    return count_and_name(cases.images[each].path if each in cases.images else each[:12] for each in image_ids)


def _change(decisions: dict[str, Decision], new: Changes) -> None:
    for image_id, decision in new.items():
        if decision is None:
            decisions.pop(image_id, None)
        else:
            decisions[image_id] = decision
