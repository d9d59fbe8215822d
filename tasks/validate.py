"""Find every labelled image under data.root, decode each, and record which can be used and which cannot.

Reads data.root and reviewed.csv; writes artifacts/manifest.parquet and artifacts/validation/. Every file found is
either in the manifest or in the quarantine: none is dropped silently, and none is converted. Where the stage fails,
the list of what it set aside is in artifacts/failed/. A file that has not changed since it was last opened here is not
opened again; the results are the same as if it were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import polars as pl

from headstart import known_files, label_names, reviewed
from headstart.base import tables, validation
from headstart.base.decisions import Decided
from headstart.base.errors import DataError, count_and_name, counted
from headstart.base.files import is_local
from headstart.base.progress import say, warn
from headstart.base.reading import Limits
from headstart.base.validation import Aside, ValidationSummary
from headstart.images import limited
from headstart.images.limited import Reader
from headstart.known_files import KnownFiles
from headstart.listing import Listing, NoImageError, list_images
from headstart.looking import Looked, Looking, look_at_all, set_duplicates_aside
from headstart.reviewed import Decision
from headstart.slicing import Facts, slices_of

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params


def decided(looked: Sequence[Looked], decisions: Mapping[str, Decision]) -> list[Looked]:
    """Return the same files as people have decided about them: without those to drop, with new labels and groups.

    DataError for a split that the data give no image: where they give none, one image would be all that is held out.
    """
    reviewed.check_splits(decisions, {item.image_id: item.found.given_split for item in looked})
    return [_decided(item, decisions[item.image_id]) if item.image_id in decisions else item for item in looked]


def _decided(item: Looked, decision: Decision) -> Looked:
    if item.reason is not None or decision.decision == "keep":
        return item
    if decision.decision == "drop":
        return item._replace(reason=f"dropped in {reviewed.NAME}", is_dropped=True)
    found = item.found
    return item._replace(
        found=found._replace(
            label=decision.label or found.label,
            group=decision.group or found.group,
            given_split=decision.split or found.given_split,
        )
    )


def changes(before: Sequence[Looked], after: Sequence[Looked]) -> list[Decided]:
    """Return what decisions have changed of usable files, which stand in the same order in both."""
    found = []
    for was, now in zip(before, after, strict=True):
        if was.reason is None and was != now:
            groups = was.found.group or was.image_id, now.found.group or now.image_id
            labels, splits = (was.found.label, now.found.label), (was.found.given_split, now.found.given_split)
            found.append(Decided(was.image_id, was.found.path, now.is_dropped, *labels, *groups, *splits))
    return found


def manifest_of(usable: list[Looked]) -> pl.DataFrame:
    """Return the manifest, `tables.MANIFEST`, sorted by image_id."""
    rows = sorted(usable, key=lambda item: item.image_id)
    return pl.DataFrame(
        {
            "image_id": [item.image_id for item in rows],
            "path": [item.found.path for item in rows],
            "label": [item.found.label for item in rows],
            "group": [item.found.group or item.image_id for item in rows],
            "given_split": [item.found.given_split for item in rows],
            "format": [item.format for item in rows],
            "width_px": [item.width_px for item in rows],
            "height_px": [item.height_px for item in rows],
            "n_bytes": [item.n_bytes for item in rows],
            "copy_in_train": [item.copy_in_train for item in rows],
        },
        schema_overrides={"given_split": pl.String, "width_px": pl.Int32, "height_px": pl.Int32},
    )


def summary_of(
    form: str,
    manifest: pl.DataFrame,
    aside: Sequence[Aside],
    small: dict[str, int],
    bits: int | None,
    n_copies: int,
    n_dropped: int,
) -> ValidationSummary:
    """Return the contents of summary.json."""
    sides = manifest.select("width_px", "height_px").iter_rows()
    n_bad = sum(each.counted for each in aside)
    return ValidationSummary(
        form=form,
        n_files=len(manifest) + len(aside),
        n_images=len(manifest),
        n_quarantined=n_bad,
        n_copies=n_copies,
        n_no_images=len(aside) - n_bad - n_copies - n_dropped - sum(small.values()),
        n_dropped=n_dropped,
        n_classes=manifest["label"].n_unique(),
        n_groups=manifest["group"].n_unique(),
        dropped_classes=small,
        images_per_class=dict(sorted(Counter(manifest["label"]).items())),
        formats=dict(sorted(Counter(manifest["format"]).items())),
        bits=bits,
        centre_share=round(median(min(each) / max(each) for each in sides), 4),
        data_sha256=tables.data_digest(manifest),
    )


def drop_small_classes(usable: Sequence[Looked], min_images: int) -> tuple[list[Looked], dict[str, int]]:
    """Return the images of the classes with `min_images` or more, and how many each of the others has."""
    counts = Counter(item.found.label for item in usable)
    small = {label: n_images for label, n_images in sorted(counts.items()) if n_images < min_images}
    return [item for item in usable if item.found.label not in small], small


def check_usable(usable: Sequence[Looked], aside: Sequence[Aside], max_fraction: float, shown: str) -> None:
    """Raise DataError if too many files cannot be used, or if the rest cannot train a classifier."""
    bad = [each for each in aside if each.counted]
    n_files = len(usable) + len(bad)
    listed = count_and_name(f"{each.path}: {each.reason}" for each in bad)
    if len(bad) > max_fraction * n_files:
        raise DataError(
            f"{len(bad)} of {n_files} files in '{shown}' cannot be used ({listed}). At most"
            f" {max_fraction:.0%} was expected. Replace or remove them, or raise validate.max_quarantined_fraction in"
            " params.yaml."
        )
    per_label = Counter(item.found.label for item in usable)
    if len(per_label) < 2:
        raise DataError(
            f"'{shown}' holds usable images of {len(per_label)} class ({count_and_name(sorted(per_label)) or 'none'})."
            " Two or more classes were expected, one folder (or label) each. Add images of another class."
        )
    if single := sorted(label for label, n_images in per_label.items() if n_images == 1):
        which = counted(len(single), f"class in '{shown}' has", f"classes in '{shown}' have")
        raise DataError(
            f"{which} a single usable image ({count_and_name(single)}). Three or more were expected, one for each"
            " of train, val and test. Add images, or set validate.min_images to 3 in params.yaml, which drops such"
            " classes."
        )


def run(params: Params, layout: Layout) -> None:
    """Find, decode and check the images, and write the results; nothing of it is written unless the checks pass."""
    shown, wanted, cache = params.data.root, params.validate_, layout.cache
    limits = Limits(wanted.max_mb * 1_000_000, wanted.timeout_s, params.data.allow_outside)

    def find() -> Listing:
        try:
            return list_images(layout.data_root, shown, params.data.layout, params.data.allow_outside)
        except NoImageError as error:
            raise _listed(error, layout, error.stray) from None

    def look(at: Listing) -> tuple[list[Looked], int | None]:
        named = label_names.applied(at, params.data.normalise_labels)
        return look_at_all(named, None if params.data.bits == "auto" else params.data.bits, known, looking)

    listing = find()
    _say_what_is_read(listing, shown)
    rules = wanted.max_pixels, wanted.max_seconds, wanted.damaged_jpegs
    known = KnownFiles(listing.folder)
    if not wanted.thorough:
        known = known_files.load(cache, layout.data_root, listing.folder, rules)
    with Reader(limited.Limits(wanted.max_pixels, wanted.max_seconds)) as reader:
        looking = Looking(reader, listing.folder, limits, wanted.damaged_jpegs == "accept")
        again = find if is_local(layout.data_root) and layout.data_root.is_dir() else lambda: listing
        listing, (looked, bits) = known_files.until_settled(known, listing, again, look)
    known_files.save(known, cache, layout.data_root, rules)
    decisions, as_found = reviewed.read(layout.reviewed), looked
    as_decided = decided(as_found, decisions)
    looked = set_duplicates_aside(as_decided)
    aside = [
        *listing.stray,
        *(Aside(item.found.path, item.reason, not (item.is_copy or item.is_dropped)) for item in looked if item.reason),
    ]
    usable, small = drop_small_classes([item for item in looked if item.reason is None], wanted.min_images)
    aside += [
        Aside(
            item.found.path,
            f"its class is dropped: usable images {small[item.found.label]}, expected {wanted.min_images}",
            counted=False,
        )
        for item in looked
        if item.reason is None and item.found.label in small
    ]
    try:
        check_usable(usable, aside, wanted.max_quarantined_fraction, shown)
    except DataError as error:
        raise _listed(error, layout, aside) from None
    manifest = tables.check(manifest_of(usable), tables.MANIFEST)
    n_copies, n_dropped = sum(item.is_copy for item in looked), sum(item.is_dropped for item in looked)
    summary = summary_of(listing.form, manifest, aside, small, bits, n_copies, n_dropped)
    slices, notes = slices_of(Facts(item.image_id, item.found.slices) for item in usable)
    validation.write(layout.validation, summary, aside, slices, changes(as_found, as_decided))
    tables.write(layout.manifest, manifest, tables.MANIFEST)
    validation.forget_failed(layout)
    _tell(summary, aside, wanted.min_images, validation.quarantine_file(layout))
    if len(slices):
        say(f"results are told apart by {', '.join(slices['slice'].unique().sort())}")
    for line in (*notes, *reviewed.told(decisions, (item.image_id for item in looked))):
        say(line)


def _say_what_is_read(listing: Listing, shown: str) -> None:
    say(f"'{shown}' is read as {listing.form}: {len(listing.found)} image files")
    if linked := listing.linked:
        links = counted(len(linked), f"folder in '{shown}' is a link", f"folders in '{shown}' are links")
        warn(
            f"{links} ({count_and_name(linked)}). DVC does not look there: after a change in it, run"
            " `headstart run --force validate`"
        )


def _listed(error: DataError, layout: Layout, aside: Sequence[Aside]) -> DataError:
    """Return the error with the name of a file that lists what was set aside, if anything was."""
    if not aside:
        return error
    return DataError(
        f"{error} All {len(aside)} files that were set aside are in {validation.write_failed(layout, aside)}."
    )


def _tell(summary: ValidationSummary, aside: Sequence[Aside], min_images: int, listed: str) -> None:
    said = f"{summary.n_images} images of {summary.n_classes} classes can be used"
    if summary.bits:
        said += (
            f"; of files with 16 bits a channel the lowest {summary.bits} hold values: {2**summary.bits - 1} is white"
        )
    say(said)
    if summary.dropped_classes:
        named = count_and_name(f"{label}: {n_images}" for label, n_images in summary.dropped_classes.items())
        small = counted(len(summary.dropped_classes), "class", "classes")
        warn(f"{small} with fewer than {min_images} images dropped ({named})")
    if summary.n_copies:
        copies = counted(summary.n_copies, "file is a copy of another", "files are copies of others")
        say(f"{copies} under the same label: one of each is used, and none counts")
    if summary.n_no_images:
        say(
            f"{counted(summary.n_no_images, 'further file is no image', 'further files are no images')}, and left alone"
        )
    if bad := [each.path for each in aside if each.counted]:
        files = counted(len(bad), "file is", "files are")
        warn(f"{files} set aside ({count_and_name(sorted(bad))}), listed with the reasons in {listed}")
