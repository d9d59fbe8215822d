"""What a chosen head consists of: one head, or several that are blended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.heads import plan
from headstart.heads.contract import Fitted, Training
from headstart.heads.design import BLOCK_ROWS, Budget, Design, Source
from headstart.heads.kinds import KINDS
from headstart.heads.linear import Linear, weighted_sum


class Member(NamedTuple):
    """A head, and its share in the scores."""

    kind: str  # a name of `kinds`
    levels: tuple[str, ...]
    columns: np.ndarray  # int [D] of all features
    strength: float
    temperature: float  # that its scores are divided by before they are blended
    weight: float  # of all members together 1


def columns_of(members: Sequence[Member]) -> np.ndarray:
    """Return int [D]: the columns that the members read together, rising."""
    return np.unique(np.concatenate([member.columns for member in members]))


def fit(
    members: Sequence[Member],
    source: Source,
    n_classes: int,
    training: Training,
    *,
    memory_mb: int,
    images: np.ndarray | None = None,
    n_threads: int = 0,
) -> Fitted:
    """Return the head, fitted on all images or on those of these numbers. It reads `columns_of` the members.

    Standardised features stay in memory if `memory_mb` hold them, else they are read again at every pass. `n_threads`
    0: a core each.
    """
    chosen = np.arange(len(source.labels)) if images is None else images
    heads = []
    with threadpool_limits(1):
        for member in members:
            some = source.at(member.columns)
            taken = plan.class_bytes(len(chosen) * some.per_image, some.n_features, n_classes)
            hold = Budget(memory_mb).holds(2 * len(chosen) * some.per_image, some.n_features, taken)
            design = Design(some, chosen, hold, n_threads)
            (head,) = KINDS[member.kind].fit_path(design, n_classes, [member.strength], training)
            heads.append(head)
    if len(heads) == 1:
        return heads[0]
    columns = columns_of(members)
    linear = [cast(Linear, head.calibrated(each.temperature)) for head, each in zip(heads, members, strict=True)]
    where = [np.searchsorted(columns, member.columns) for member in members]
    return weighted_sum(linear, [member.weight for member in members], where, len(columns))


def fit_bytes(members: Sequence[Member], source: Source, n_images: int, n_classes: int) -> int:
    """Return what fitting the widest of the members takes."""
    n_rows, width = n_images * source.per_image, max(len(member.columns) for member in members)
    return source.row_bytes() * n_images + plan.class_bytes(n_rows, width, n_classes)


def scores_of(head: Fitted, source: Source, images: np.ndarray) -> np.ndarray:
    """Return float64 [len(images), C]: a head's scores of the images of these numbers, read in blocks."""
    parts = (images[start : start + BLOCK_ROWS] for start in range(0, len(images), BLOCK_ROWS))
    return np.concatenate([head.scores(source.read(part)) for part in parts])
