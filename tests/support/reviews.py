"""A project as the stage `audit` leaves it, from drawn images and written tables."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import polars as pl

from headstart.auditing import folder
from headstart.auditing.folder import AuditRecord, Calibration, Finding, ShiftRecord
from headstart.base import dataset, tables, validation
from headstart.base.dataset import SplitSummary
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout
from tests.support.images import ROOT, encoded, photograph

# path -> label, split, given split, group
Rows = dict[str, tuple[str, str, str | None, str]]
PLAIN: Rows = {
    "photos/ants/0.png": ("ants", "train", None, ""),
    "photos/ants/1.png": ("ants", "test", None, ""),
    "photos/ants/2.png": ("ants", "train", None, ""),
    "photos/ants/3.png": ("ants", "val", None, ""),
    "photos/ants/4.png": ("ants", "train", None, ""),
    "photos/bees/0.png": ("bees", "train", None, ""),
    "photos/bees/1.png": ("bees", "test", None, ""),
    "photos/bees/2.png": ("bees", "train", None, ""),
    "photos/bees/3.png": ("bees", "val", None, ""),
}
Told = tuple[str, str, str | None, str | None, int | None, float]  # kind, path, other, suggested, cluster, score
FOUND: list[Told] = [
    ("leak", "photos/ants/0.png", "photos/ants/1.png", None, 0, 0.99),
    ("leak", "photos/ants/2.png", "photos/ants/1.png", None, 0, 0.98),
    ("conflict", "photos/bees/3.png", "photos/ants/3.png", "ants", 1, 0.97),
    ("label", "photos/ants/1.png", "photos/bees/1.png", "bees", None, 0.9),
    ("label", "photos/bees/2.png", "photos/ants/3.png", "ants", None, 0.5),
    ("odd", "photos/bees/0.png", None, None, None, 9.0),
]

CALIBRATION = Calibration(
    cosine=0.5,
    correlations=[0.9, 0.9, 0.9],
    n_originals=30,
    recall={"cropped": 1.0},
    n_random=100,
    n_false=0,
    false_positive_rate=2.9e-07,
    n_compared=10,
    is_cut=False,
)


def audited(root: Path, rows: Rows = PLAIN, found: list[Told] = FOUND) -> Layout:
    """Write images, tables and artifacts/audit."""
    root.mkdir(exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("root: data/digits", "root: .", 1))
    layout = Layout(root, ".")
    id_of = {}
    for number, path in enumerate(rows):
        data = encoded(photograph(number, 120, 160))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        id_of[path] = hashlib.sha256(data).hexdigest()
    _write_tables(layout, rows, id_of)
    findings = [
        Finding(
            kind,  # type: ignore[arg-type]
            id_of[path],
            path,
            rows[path][1],
            rows[path][0],
            other and id_of[other],
            other,
            None,
            None,
            suggested,
            cluster,
            score,
            "high" if score >= 0.9 else "low",
            f"{kind} of {path}",
            "look at it",
        )
        for kind, path, other, suggested, cluster, score in found
    ]
    folder.write(layout.audit, findings, _record(len(rows)), groups(id_of, rows))
    return layout


def id_of(layout: Layout, path: str) -> str:
    """Return the image_id of a file."""
    return hashlib.sha256((layout.root / path).read_bytes()).hexdigest()


def groups(id_of: dict[str, str], rows: Rows) -> pl.DataFrame:
    """Return the proposed groups: the first two bees."""
    own = [path for path, row in rows.items() if row[0] == "bees"][:2]
    return pl.DataFrame([(id_of[path], path, "series 1") for path in own], folder.no_groups().schema, orient="row")


def _write_tables(layout: Layout, rows: Rows, id_of: dict[str, str]) -> None:
    order = sorted(rows, key=id_of.__getitem__)
    columns = {
        "image_id": [id_of[path] for path in order],
        "path": order,
        "label": [rows[path][0] for path in order],
        "group": [rows[path][3] or id_of[path] for path in order],
    }
    n_images = len(order)
    sizes = {"width_px": [160] * n_images, "height_px": [120] * n_images}
    manifest = pl.DataFrame(
        {
            **columns,
            "given_split": [rows[path][2] for path in order],
            "format": ["PNG"] * n_images,
            **sizes,
            "n_bytes": [100] * n_images,
            "copy_in_train": [False] * n_images,
        },
        schema_overrides={"given_split": pl.String, "width_px": pl.Int32, "height_px": pl.Int32},
    )
    tables.write(layout.manifest, manifest, tables.MANIFEST)
    splits = pl.DataFrame({**columns, "split": [rows[path][1] for path in order]})
    summary = SplitSummary(
        classes=["ants", "bees"],
        n_images={},
        images_per_class={},
        notes=[],
        warnings=[],
        lacking={},
        copies_in_train={},
    )
    dataset.write(layout, splits, summary)
    slices = pl.DataFrame(schema=dict.fromkeys(("image_id", "slice", "value"), pl.String))
    checked = ValidationSummary(
        form="class folders",
        n_files=n_images,
        n_images=n_images,
        n_quarantined=0,
        n_copies=0,
        n_dropped=0,
        n_no_images=0,
        n_classes=2,
        n_groups=n_images,
        dropped_classes={},
        images_per_class={},
        formats={},
        bits=None,
        centre_share=1.0,
        data_sha256="0" * 64,
    )
    validation.write(layout.validation, checked, [], slices)


def _record(n_images: int) -> AuditRecord:
    shift = ShiftRecord(
        cv_accuracy=0.9,
        held_out_accuracy=0.9,
        drop_p_value=0.5,
        auc=None,
        auc_low=None,
        auc_high=None,
        auc_p_value=None,
        neighbour_agreement=0.9,
        held_out_neighbour_agreement=0.9,
        level=0.01,
        is_lower=False,
        differs=False,
        verdict="",
    )
    return AuditRecord(
        n_images=n_images,
        n_clusters=2,
        n_clusters_decided=0,
        n_leaking_clusters=1,
        n_held_out_leaked=1,
        calibration=CALIBRATION,
        is_exact=True,
        n_labels_by_neighbours=0,
        n_labels_suspicious=2,
        n_odd=1,
        overlaps=[],
        few=[],
        shift=shift,
        groups=None,
    )
