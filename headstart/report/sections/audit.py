"""Can the data be trusted?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headstart.auditing.folder import AuditRecord, Kind
from headstart.report.artefacts import Artefacts, Shown

_MAX_SHOWN = 12  # findings of a kind
_KINDS: Mapping[Kind, tuple[str, str]] = {
    "leak": (
        "Nearly the same picture in two splits",
        "Where one of them is in test, what is measured on it is too good. Between train and val it flatters choices.",
    ),
    "conflict": ("Nearly the same picture under two labels", "One of the labels is wrong."),
    "label": (
        "Labels that may be wrong",
        "By heads that were not fitted on the image, the most suspicious first; beside it the nearest image"
        " of the label that they suggest, then of its own. It is a ranking: only looking tells which are wrong.",
    ),
    "odd": ("Odd images", "Far outside this dataset in one way, the farthest first."),
    "copy": ("Nearly the same picture in one split", "Harmless, but in one group no fold would separate them."),
}


class Row(NamedTuple):
    """A finding with its pictures."""

    image: Shown
    other: Shown | None
    same: Shown | None  # the nearest image with the label that is given
    suggested: str | None
    reason: str
    split: str
    other_split: str | None


class Part(NamedTuple):
    """The findings of a kind."""

    id: str
    title: str
    words: str
    rows: Sequence[Row]
    n_all: int


@dataclass(frozen=True)
class Audit:
    """Near-identical images, labels, odd images, and whether the held-out images come from elsewhere."""

    record: AuditRecord
    parts: Sequence[Part]
    template: str = "audit"

    @classmethod
    def of(cls, run: Artefacts) -> Audit | None:
        """Return the section of a run, or None where the audit is off."""
        if run.audit is None:
            return None
        images = run.everything
        row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}

        def shown(image_id: str) -> Shown:
            return run.shown(images[np.array([row_of[image_id]])])[0]

        parts = []
        for kind, (title, words) in _KINDS.items():
            own = [each for each in run.findings.iter_rows(named=True) if each["kind"] == kind]
            rows = [
                Row(
                    shown(each["image_id"]),
                    shown(each["other_image_id"]) if each["other_image_id"] else None,
                    shown(each["same_image_id"]) if each["same_image_id"] else None,
                    each["suggested"],
                    each["reason"],
                    each["split"],
                    run.split_of.get(each["other_image_id"]),
                )
                for each in own[:_MAX_SHOWN]
            ]
            if rows:
                parts.append(Part(f"audit-{kind}", title, words, rows, len(own)))
        return cls(run.audit, parts)

    def figures(self) -> Mapping[str, str]:
        """Return nothing: there are no plots."""
        return {}
