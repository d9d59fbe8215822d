"""What tests of the stage `validate` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import polars as pl

from headstart import params, params_file
from headstart.base import tables
from headstart.layout import Layout
from headstart.param_types import NO_IMAGES
from tasks import validate
from tests.support.images import ROOT

Folders = Callable[..., Path]


def run(
    root: Path | str,
    layout: Layout,
    max_quarantined_fraction: float = 0.5,
    min_images: int = 1,
    bits: Literal["auto"] | int = "auto",
    folders: str = "auto",
    allow_outside: bool = False,
    normalise_labels: bool = False,
    **rules: object,
) -> pl.DataFrame:
    values = params_file.load(ROOT / "params.yaml")
    values = values.model_copy(
        update={
            "data": params.Data(
                root=str(root),
                unlabelled=NO_IMAGES,
                bits=bits,
                layout=folders,
                allow_outside=allow_outside,
                normalise_labels=normalise_labels,
            ),
            "validate_": values.validate_.model_copy(
                update={"max_quarantined_fraction": max_quarantined_fraction, "min_images": min_images, **rules}
            ),
        }
    )
    validate.run(values, Layout.of(layout.root, values))
    return tables.read(layout.manifest, tables.MANIFEST, "validate")


def quarantine(layout: Layout) -> dict[str, str]:
    return dict(pl.read_csv(layout.validation / "quarantine.csv").select("path", "reason").iter_rows())


def failed(layout: Layout) -> dict[str, str]:
    return dict(pl.read_csv(layout.artifacts / "failed/quarantine.csv").select("path", "reason").iter_rows())


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
