"""The questions to people: each finding of the audit, with what the data say of its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from headstart.auditing import folder
from headstart.auditing.folder import SEVERITIES, Finding, Kind
from headstart.base import dataset, tables
from headstart.base.errors import CheckError
from headstart.reviewed import About

if TYPE_CHECKING:
    from headstart.layout import Layout

KINDS: tuple[Kind, ...] = ("leak", "conflict", "label", "odd", "copy")  # what matters most comes first
PAIRS: tuple[Kind, ...] = ("leak", "conflict", "copy")  # two pictures that are nearly the same


class Case(NamedTuple):
    """A finding that people decide about."""

    number: int  # its place in `Cases.all`
    finding: Finding
    # image_id of all pictures that are nearly the same as this one, and its own
    cluster: tuple[str, ...]

    @property
    def pictures(self) -> list[str]:
        """The image_id of its image, and of those that are shown beside it."""
        each = self.finding
        return [image_id for image_id in (each.image_id, each.other_image_id, each.same_image_id) if image_id]


@dataclass(frozen=True)
class Cases:
    """Everything that there is to decide about."""

    all: Sequence[Case]  # by kind, the most severe first
    images: Mapping[str, About]  # of the splits, by image_id
    split_of: Mapping[str, str]
    classes: Sequence[str]
    proposed: Sequence[Sequence[str]]  # the images of each group that nobody gave
    n_gone: int  # findings about images that are no longer in the data

    @classmethod
    def of(cls, layout: Layout) -> Cases:
        """Return the findings of the last run; CheckError if there are none because the stage `audit` has not run."""
        if folder.read(layout.audit) is None:
            raise CheckError(
                "the last run did not look for what is wrong with the data: audit.enabled is false. Run"
                " `headstart run --set audit.enabled=true`."
            )
        data = dataset.read(layout)
        manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
        given = dict(manifest.select("image_id", "given_split").iter_rows())
        rows = data.table.select("image_id", "path", "label", "group").iter_rows()
        images = {each: About(path, label, group, given.get(each)) for each, path, label, group in rows}
        found = [Finding(**row) for row in folder.findings(layout.audit).iter_rows(named=True)]
        here = [each for each in found if {*Case(0, each, ()).pictures} <= images.keys()]
        here.sort(key=lambda each: (KINDS.index(each.kind), SEVERITIES.index(each.severity)))  # else as they were
        members = _clusters(here)
        return cls(
            [Case(number, each, members.get(_cluster_of(each), ())) for number, each in enumerate(here)],
            images,
            dict(data.table.select("image_id", "split").iter_rows()),
            data.classes,
            _proposed(layout, images),
            len(found) - len(here),
        )


def _cluster_of(finding: Finding) -> int | None:
    return finding.cluster if finding.kind in PAIRS else None


def _clusters(findings: Sequence[Finding]) -> dict[int | None, tuple[str, ...]]:
    found: dict[int, set[str]] = defaultdict(set)
    for each in findings:
        if (number := _cluster_of(each)) is not None:
            found[number] |= {each.image_id, each.other_image_id or each.image_id}
    return {number: tuple(sorted(members)) for number, members in found.items()}


def _proposed(layout: Layout, images: Mapping[str, About]) -> list[list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for image_id, group in folder.groups(layout.audit).select("image_id", "group").iter_rows():
        if image_id in images:
            found[group].append(image_id)
    return [members for members in found.values() if len(members) > 1]
