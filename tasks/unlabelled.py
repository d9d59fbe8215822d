"""Bring images without labels to features, the same way as those with labels, into stores of their own.

Reads data.unlabelled, the backbone, and which images have labels; writes artifacts/unlabelled/: unlabelled.json, where
there are files quarantine.csv, and where there are images a manifest, pixels and features. `adapt` alone is
fitted to them, and `evaluate` tells by the labels that some are given how good that is; no figure of the labelled
images depends on them. An image that is in data.root too is left out, and a folder of which no other is left stands
for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from headstart import known_files
from headstart.base import tables, unlabelled, validation
from headstart.base.errors import DataError, count_and_name
from headstart.base.progress import say, warn
from headstart.base.reading import Limits
from headstart.base.unlabelled import UnlabelledRecord
from headstart.base.validation import Aside, ValidationSummary
from headstart.images import limited
from headstart.images.deep import ALL_BITS
from headstart.known_files import KnownFiles
from headstart.listing import Listing, list_unlabelled
from headstart.looking import Looked, Looking, look_at_all, set_duplicates_aside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Open, decode, resize and embed the images; without any, write that there are none."""
    shown = params.data.unlabelled
    listing = list_unlabelled(layout.unlabelled_root, shown, params.data.allow_outside)
    if not listing.found and not listing.stray:
        none = UnlabelledRecord(n_images=0, n_aside=0, n_copies=0, n_labelled_before=0, n_given_labels=0)
        unlabelled.write(layout, pl.DataFrame(), none)
        say(f"off: '{shown}' names no images")
        return
    bits = ValidationSummary.of(layout).bits or ALL_BITS  # those of the labelled images: the model is made for them
    known_ids = set(tables.read(layout.manifest, tables.MANIFEST, "validate")["image_id"])
    rows, aside, record = sorted_out(_looked(params, layout, listing, bits), known_ids, listing.stray)
    if record.n_aside and not record.n_images + record.n_labelled_before:
        reasons = count_and_name(f"{each.path}: {each.reason}" for each in aside if each.counted)
        raise DataError(
            f"none of {record.n_aside} files in '{shown}' can be used ({reasons}). Images were expected. Set"
            " data.unlabelled in params.yaml; unlabelled.csv stands for none."
        )
    unlabelled.write(layout, rows, record)
    validation.write_quarantine(layout.unlabelled, aside)
    _tell(record)
    if record.n_images:
        _fill(params, layout, dict(rows.select("image_id", "path").iter_rows()), bits)


def sorted_out(
    looked: list[Looked], labelled: set[str], stray: list[Aside]
) -> tuple[pl.DataFrame, list[Aside], UnlabelledRecord]:
    """Return `tables.UNLABELLED`, sorted by image_id; the files that are set aside; and the counts.

    `labelled`: the image_ids of data.root, whose images are left out here.
    """
    given = {item.found.path: item.found.label or None for item in looked}
    same = [item._replace(found=item.found._replace(label="")) for item in looked]  # a copy of two labels is a copy
    found = set_duplicates_aside(same)
    before = [item for item in found if item.reason is None and item.image_id in labelled]
    usable = sorted((item for item in found if item.reason is None and item.image_id not in labelled), key=_by_id)
    aside = [*stray, *(Aside(item.found.path, item.reason, not item.is_copy) for item in found if item.reason)]
    aside += [Aside(item.found.path, "it is among the labelled images of data.root", counted=False) for item in before]
    rows = pl.DataFrame(
        {
            "image_id": [item.image_id for item in usable],
            "path": [item.found.path for item in usable],
            "label": [given[item.found.path] for item in usable],
        },
        {"image_id": pl.String, "path": pl.String, "label": pl.String},
    )
    record = UnlabelledRecord(
        n_images=len(usable),
        n_aside=sum(each.counted for each in aside),
        n_copies=sum(item.is_copy for item in found),
        n_labelled_before=len(before),
        n_given_labels=len(rows) - rows["label"].null_count(),
    )
    return rows, aside, record


def _by_id(item: Looked) -> str:
    return item.image_id


def _looked(params: Params, layout: Layout, listing: Listing, bits: int) -> list[Looked]:
    wanted, root, cache = params.validate_, layout.unlabelled_root, layout.cache
    limits = Limits(wanted.max_mb * 1_000_000, wanted.timeout_s, params.data.allow_outside)
    rules = wanted.max_pixels, wanted.max_seconds, wanted.damaged_jpegs
    known = KnownFiles(listing.folder)
    if not wanted.thorough:
        known = known_files.load(cache, root, listing.folder, rules)
    with limited.Reader(limited.Limits(wanted.max_pixels, wanted.max_seconds)) as reader:
        looking = Looking(reader, listing.folder, limits, wanted.damaged_jpegs == "accept")
        looked, _ = look_at_all(listing, bits, known, looking)
    known_files.save(known, cache, root, rules)
    return looked


def _fill(params: Params, layout: Layout, images: Mapping[str, str], bits: int) -> None:
    """Compute pixels and features with the backbone and the settings of the labelled images, from one cache."""
    from headstart.embedding import features, pixels
    from headstart.embedding.compute import planned
    from headstart.embedding.filling import fill_features, fill_pixels
    from headstart.onnx import backbone_folder
    from headstart.store.workers import workers

    own, address, wanted = layout.of_unlabelled(), params.cluster.address, params.embed
    making = pixels.planned(own, bits)
    fill_pixels(own, images, making, address, params.transform.keep_pixels)
    backbone = backbone_folder.read(layout.backbone)
    computing = planned(layout.backbone, wanted.engine, wanted.batch_size, wanted.dtype, pixels.opened(own))
    contract = computing.contract(pixels.contract(making), backbone.n_features)
    with workers(address) as pool:
        fill_features(own, own.plain_features, images, contract, computing, pool)
    features.write_record(own, computing.record(backbone.levels))


def _tell(record: UnlabelledRecord) -> None:
    say(f"{record.n_images} images without labels")
    if record.n_labelled_before:
        say(f"{record.n_labelled_before} more are among the labelled images of data.root, and are left out")
    if record.n_aside:
        warn(f"{record.n_aside} files cannot be used: artifacts/unlabelled/quarantine.csv has the reasons")
