"""artifacts/audit: findings.parquet, audit.json, groups.csv, and counts.json for DVC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from headstart.base import tables
from headstart.base.errors import counted
from headstart.base.files import existing, read_csv, replacing_folder, write_csv, write_json
from headstart.base.records import Record
from headstart.base.tables import Table

FINDINGS, COUNTS, GROUPS = "findings.parquet", "counts.json", "groups.csv"
_RECORD, _STAGE = "audit.json", "audit"

Kind = Literal["leak", "conflict", "copy", "label", "odd", "next"]  # the last: of no audit, an image without a label
KINDS: tuple[Kind, ...] = ("leak", "conflict", "copy", "label", "odd")
Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


class Finding(NamedTuple):
    """A row of findings.parquet: what may be wrong with an image."""

    # leak: near-identical to an image of another split; conflict: to one with another label; copy: to one of its split
    # and label; label: its label may be wrong; odd: it may be no picture of its class at all
    kind: Kind
    image_id: str
    path: str
    split: str
    label: str
    other_image_id: str | None  # the image that it is compared with; of `label`, the nearest of the suggested class
    other_path: str | None
    same_image_id: str | None  # of `label`, the nearest image with the label that is given
    same_path: str | None
    suggested: str | None  # another label
    cluster: int | None  # near-identical images have one number
    score: float  # correlation of aligned pixels; -margin of the label; robust deviations of odd images
    severity: Severity
    reason: str
    to_do: str


class Calibration(Record):
    """What counts as near-identical here, and how often that is wrong."""

    cosine: float  # of the features, from which a pair is looked at
    correlations: list[float]  # of the aligned pixels, from which a pair of that class is near-identical [C]
    n_originals: int  # images that copies were made of
    recall: dict[str, float]  # kind of copy -> share that is found
    n_random: int  # random pairs of images of one class
    n_false: int  # of them, found near-identical
    false_positive_rate: float  # of random pairs, if their correlation is normal after Fisher's transform
    n_compared: int  # pairs whose pixels were compared
    is_cut: bool  # whether there were more candidates than the stage compares


class Overlap(Record):
    """Two classes that are taken for each other in cross-validation."""

    label: str
    other: str
    n_images: int  # of both classes, that got the other label
    share: float  # of all images of the two classes


class Few(Record):
    """A class with too few held-out images for a narrow interval."""

    label: str
    n_images: int
    width: float  # of the 95 % interval of its accuracy


class ShiftRecord(Record):
    """Whether the held-out images come from elsewhere."""

    cv_accuracy: float
    held_out_accuracy: float  # of the head on the frozen backbone
    drop_p_value: float  # that it is so much lower by chance
    auc: float | None  # of a classifier that tells held-out images from the others; None: too few images
    auc_low: float | None
    auc_high: float | None
    auc_p_value: float | None
    neighbour_agreement: float  # share of known images whose nearest other known image has their label
    held_out_neighbour_agreement: float  # share of held-out images whose nearest known image has their label
    level: float  # audit.false_alarm: the chance of any warning where nothing differs
    is_lower: bool
    differs: bool
    verdict: str  # in words; empty where nothing is found


class GroupsRecord(Record):
    """The groups that are proposed."""

    n_groups: int
    n_images: int
    basis: list[str]  # what they follow from, in words


class AuditRecord(Record):
    """The fields of audit.json."""

    n_images: int
    n_clusters: int  # of near-identical images
    n_clusters_decided: int  # of them, by groups, or because people want them as they are
    n_leaking_clusters: int  # of them, across splits
    n_held_out_leaked: int  # test images that have a near-identical one in train or val
    calibration: Calibration
    is_exact: bool  # whether every pair of images was compared by features
    n_labels_by_neighbours: int  # ranked by a vote of the nearest images: they were not in the cross-validation
    n_labels_suspicious: int  # another label is more probable
    n_odd: int
    overlaps: list[Overlap]
    few: list[Few]
    shift: ShiftRecord
    groups: GroupsRecord | None

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before the figures, each in a sentence or two."""
        found = []
        if self.shift.verdict:
            found.append(f"the test images may come from elsewhere: {self.shift.verdict}")
        if self.n_held_out_leaked:
            leaked = counted(self.n_held_out_leaked, "test image has", "test images have")
            found.append(
                f"{leaked} a nearly identical one in train or val, so the accuracy is too good. The list is in"
                " artifacts/audit; `headstart review` puts each picture in one split"
            )
        return found

    @property
    def told(self) -> str:
        """What was found, in a line."""
        counts = (
            (self.n_clusters - self.n_clusters_decided, "near-identical group", "near-identical groups"),
            (self.n_labels_suspicious, "doubtful label", "doubtful labels"),
            (self.n_odd, "odd image", "odd images"),
            (self.groups.n_groups if self.groups else 0, "series", "series"),
        )
        found = ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in counts)
        if self.n_clusters_decided:
            found += f" ({self.n_clusters_decided:,} near-identical more are decided)"
        return f"{found}: see `headstart review`" if any(n for n, _, _ in counts) else found

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers for DVC."""
        return {
            "near_identical_clusters": self.n_clusters,
            "held_out_leaked": self.n_held_out_leaked,
            "labels_suspicious": self.n_labels_suspicious,
            "odd": self.n_odd,
            "shift_auc": self.shift.auc,
            "shift_p_value": self.shift.auc_p_value,
            "accuracy_drop": round(self.shift.cv_accuracy - self.shift.held_out_accuracy, 6),
            "accuracy_drop_p_value": self.shift.drop_p_value,
            "warnings": len(self.warnings),
        }


class _Off(Record):
    """audit.json where audit.enabled is false."""

    enabled: Literal[False]


def write_off(folder: Path) -> None:
    """Write a folder that says that nothing was looked at."""
    with replacing_folder(folder) as beside:
        tables.write(beside / FINDINGS, table([]), FINDINGS_TABLE)
        write_csv(beside / GROUPS, no_groups())
        write_json(beside / COUNTS, {})
        _Off(enabled=False).write(beside / _RECORD)


def no_groups() -> pl.DataFrame:
    """Return an empty table of proposed groups."""
    return pl.DataFrame(schema=dict.fromkeys(("image_id", "path", "group"), pl.String))


def write(folder: Path, findings: Sequence[Finding], record: AuditRecord, groups: pl.DataFrame) -> None:
    """Write the whole folder; on failure it is unchanged."""
    with replacing_folder(folder) as beside:
        tables.write(beside / FINDINGS, table(findings), FINDINGS_TABLE)
        write_csv(beside / GROUPS, groups)
        write_json(beside / COUNTS, record.metrics)
        record.write(beside / _RECORD)


def read(folder: Path) -> AuditRecord | None:
    """Return what was found, in numbers, or None where the audit is off; CheckError if `audit` has not written it."""
    if b'"enabled": false' in existing(folder / _RECORD, _STAGE).read_bytes():
        return None
    return AuditRecord.read(folder / _RECORD, _STAGE)


def findings(folder: Path) -> pl.DataFrame:
    """Return `FINDINGS_TABLE`, by kind, the most severe first."""
    return tables.read(folder / FINDINGS, FINDINGS_TABLE, _STAGE)


def groups(folder: Path) -> pl.DataFrame:
    """Return the proposed groups: image_id, path, group."""
    return read_csv(folder / GROUPS, _STAGE)


def table(found: Sequence[Finding]) -> pl.DataFrame:
    """Return the table of findings: by kind, then the highest score, then the path."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    rows = sorted(found, key=lambda each: (order[each.kind], -each.score, each.path, each.other_path or ""))
    schema = {
        **dict.fromkeys(Finding._fields, pl.String),
        "cluster": pl.Int32,
        "score": pl.Float64,
    }
    return pl.DataFrame(rows, schema, orient="row")


def _columns(pa: Any) -> dict[str, Any]:
    def text(**options: object) -> Any:
        return pa.Column(pl.String, pa.Check.str_length(min_value=1), **options)

    def one_of(names: Sequence[str]) -> Any:
        return pa.Column(pl.String, pa.Check.isin(names))

    return {
        "kind": one_of(KINDS),
        "image_id": pa.Column(pl.String, pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        "path": text(),
        "split": one_of(tables.SPLIT_NAMES),
        "label": text(),
        "other_image_id": text(nullable=True),
        "other_path": text(nullable=True),
        "same_image_id": text(nullable=True),
        "same_path": text(nullable=True),
        "suggested": text(nullable=True),
        "cluster": pa.Column(pl.Int32, nullable=True),
        "score": pa.Column(pl.Float64),
        "severity": one_of(SEVERITIES),
        "reason": text(),
        "to_do": text(),
    }


FINDINGS_TABLE = Table("findings", Finding._fields, _columns)
