"""The backbone that the stage `rank` has chosen, as the section `backbone` of params.yaml would name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from headstart.base.errors import CheckError
from headstart.base.records import Record

if TYPE_CHECKING:
    from pathlib import Path

    from headstart import params as parameters
    from headstart.layout import Layout

NAME = "ranked"  # backbone.name that stands for the winner
Triple = tuple[float, float, float]


class Winner(Record):
    """The values of the section `backbone`."""

    name: str
    weights: str
    sha256: str | None
    licence: str | None
    outputs: tuple[str, ...] | None
    channel_order: Literal["rgb", "bgr"] | None
    input_px: int | None
    crop_fraction: float | None
    interpolation: Literal["bilinear", "bicubic"] | None
    mean: Triple | None
    std: Triple | None


class RankedRecord(Record):
    """ranked.json."""

    winner: Winner | None  # None: nothing was ranked, or none may win


def write(path: Path, winner: parameters.Backbone | None) -> None:
    """Write which backbone was chosen, if any."""
    RankedRecord(winner=None if winner is None else Winner.model_validate(winner.model_dump())).write(path)


def resolved(wanted: parameters.Backbone, layout: Layout) -> parameters.Backbone:
    """Return the section `backbone`, with the winner's values if its name is `ranked`; CheckError if there is none."""
    if not wanted.is_ranked:
        return wanted
    winner = RankedRecord.read(layout.ranked, "rank").winner
    if winner is None:
        raise CheckError(
            f"{layout.ranked} names no backbone, since none of rank.backbones may win, or `rank` has not compared any."
            " Add others to rank.backbones, or change rank.max_ms, rank.max_mb or export.licences, in params.yaml, and"
            " run `dvc repro rank`, which says what each lacks."
        )
    return wanted.model_copy(update=winner.model_dump())
