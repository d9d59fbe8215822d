"""Look for what is wrong with the data: near-identical images, wrong labels, a test split from elsewhere, junk.

Reads features, splits, pixels, files and the predictions out of fold; writes artifacts/audit/. The model does not
depend on it. With audit.on_leak `move` it also adds rows to reviewed.csv, which the next run reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headstart import reviewed
from headstart.auditing import classes, duplicates, folder, neighbours, series, shift, told
from headstart.auditing.folder import AuditRecord, Finding
from headstart.auditing.seen import Seen
from headstart.base.errors import DataError, count_and_name
from headstart.base.files import write_csv
from headstart.base.progress import say, warn
from headstart.reviewed import About, Decision, Grouping

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_NEIGHBOURS = 10  # of each image
_LEAKS = "leaks.csv"


def run(params: Params, layout: Layout) -> None:
    """Look, write what was found, and warn of what matters."""
    settings = params.audit
    if not settings.enabled:
        folder.write_off(layout.audit)
        say("off: audit.enabled is false")
        return
    seen = Seen.of(layout)
    near = neighbours.nearest(seen.rows, _NEIGHBOURS)
    pairs, calibration = duplicates.find(
        seen.rows, seen.labels, len(seen.classes), near, seen.pixels, seen.backbone, settings.seed, seen.compared_before
    )
    clusters = duplicates.clusters(pairs.rows, len(seen))
    decisions = reviewed.read(layout.reviewed)
    copies = told.copies(seen, pairs, clusters)
    suspicious, n_voted = told.labels(seen, near)
    suspicious, odd = (_not_kept(each, decisions) for each in (suspicious, told.odd(seen, near)))
    groups, grouped = series.proposed(seen, near, clusters, settings.seed)
    together = "; ".join(groups.basis) if groups else ""
    record = AuditRecord(
        n_images=len(seen),
        n_clusters=len(clusters),
        n_clusters_decided=sum(_is_decided(seen, rows, decisions) for rows in clusters),
        n_leaking_clusters=sum(len(set(seen.splits[rows])) > 1 for rows in clusters),
        n_held_out_leaked=told.n_held_out_leaked(seen, clusters),
        calibration=calibration,
        is_exact=near.is_exact,
        n_labels_by_neighbours=n_voted,
        n_labels_suspicious=len(suspicious),
        n_odd=len({each.image_id for each in odd}),
        overlaps=classes.overlaps(seen),
        few=classes.few(seen, settings.interval_width),
        shift=shift.judged(seen, near, settings.false_alarm, settings.seed, together),
        groups=groups,
    )
    findings = [*copies, *suspicious, *odd]
    torn = _torn(seen, clusters, decisions)
    if torn and settings.on_leak == "error":
        raise _refused(torn, findings, layout)
    (layout.failed / _LEAKS).unlink(missing_ok=True)
    folder.write(layout.audit, findings, record, grouped)
    if record.n_leaking_clusters and settings.on_leak == "move":
        _move(seen, clusters, layout)
    for warning in record.warnings:
        warn(warning)
    say(record.told)


def _not_kept(findings: Sequence[Finding], decisions: Mapping[str, Decision]) -> list[Finding]:
    """Return the findings about images that nobody has called right as they are."""
    return [each for each in findings if not (found := decisions.get(each.image_id)) or found.decision != "keep"]


def _is_decided(seen: Seen, rows: np.ndarray, decisions: Mapping[str, Decision]) -> bool:
    """Return whether the images of a cluster are in one group, or all but one are to stay as they are."""
    is_kept = [_is_kept(seen.images.image_ids[row], decisions) for row in rows]
    return len(set(seen.images.groups[rows])) == 1 or sum(is_kept) >= len(rows) - 1


def _torn(seen: Seen, clusters: Sequence[np.ndarray], decisions: Mapping[str, Decision]) -> list[list[str]]:
    """Return the image_ids of each cluster that is in more than one split, but for what people want to stay there."""
    torn = []
    for rows in clusters:
        some = [row for row in rows if not _is_kept(seen.images.image_ids[row], decisions)]
        if len(set(seen.splits[some])) > 1:
            torn.append([seen.images.image_ids[row] for row in some])
    return torn


def _refused(torn: Sequence[Sequence[str]], findings: Sequence[Finding], layout: Layout) -> DataError:
    """Return the error for audit.on_leak `error`, after it wrote which images leak."""
    file, open_ids = layout.failed / _LEAKS, {image_id for cluster in torn for image_id in cluster}
    leaks = [each for each in findings if each.kind == "leak" and each.image_id in open_ids]
    write_csv(file, folder.table(leaks))
    return DataError(
        f"{len(torn)} pictures are in more than one split, nearly the same"
        f" ({count_and_name(each.path for each in leaks)}). None was expected, since audit.on_leak is error. They are"
        f" in {file.relative_to(layout.root)}. Set audit.on_leak to move in params.yaml, or remove them."
    )


def _move(seen: Seen, clusters: Sequence[np.ndarray], layout: Layout) -> None:
    """Decide, for the next run, that each cluster stays in one split, with all images that share a group with it."""
    ids = seen.images.image_ids
    torn = [[ids[row] for row in rows] for rows in clusters if len(set(seen.splits[rows])) > 1]
    with reviewed.changing(layout.reviewed) as decisions:
        new, n_left, n_small = moved(seen.about, torn, decisions)
        decisions |= new
    if new:
        warn(
            f"{len(new)} images are put together in {reviewed.NAME}, those that are nearly the same across splits and"
            " those in a group with them; the next run has each group in one split"
        )
    if n_left:
        warn(
            f"{n_left} pictures stay in more than one split, since {reviewed.NAME} says that an image of them is right"
            " as it is"
        )
    if n_small:
        warn(
            f"{n_small} pictures stay in more than one split: a class would have too few groups left for all splits."
            " Add images to it, drop such classes by validate.min_images, or drop the copies by `headstart review`"
        )


def moved(
    about: Mapping[str, About], clusters: Sequence[Sequence[str]], decisions: Mapping[str, Decision]
) -> tuple[dict[str, Decision], int, int]:
    """Return the decisions that are new if each cluster of image_ids is put in one split; and how many stay torn.

    An image that a person has decided to keep as it is, or in a group of its own, is left where it is: the first count.
    A cluster is too where a class would have too few groups for all splits: the second.
    """
    grouping, n_left, n_small = Grouping(about, decisions), 0, 0
    found: dict[str, Decision] = {}
    for cluster in clusters:
        some = [each for each in cluster if not _is_kept(each, decisions)]
        n_left += len(some) < len(cluster)
        if len(some) < 2:
            continue
        if grouping.leaves_enough(some):
            found |= grouping.join(some)
        else:
            n_small += 1
    return {image_id: each for image_id, each in found.items() if decisions.get(image_id) != each}, n_left, n_small


def _is_kept(image_id: str, decisions: Mapping[str, Decision]) -> bool:
    decision = decisions.get(image_id)
    return decision is not None and (decision.decision == "keep" or decision.group == image_id)
