"""The backbones that are compared: what each is, what it costs, and whether it may win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headstart.backbones import bundled, hub
from headstart.backbones.hub_errors import is_on_hub
from headstart.backbones.made import make
from headstart.backbones.weights import is_url
from headstart.base import licences
from headstart.base.errors import ParamError
from headstart.base.licences import Licence
from headstart.base.progress import say, warn
from headstart.onnx.backbone_folder import BACKBONE, RESIZE, BackboneRecord
from headstart.ranking import measure
from headstart.ranking.measure import Measured

if TYPE_CHECKING:
    from headstart import params as parameters
    from headstart.layout import Layout
    from headstart.onnx.backbone_folder import Fit
    from headstart.params import Export, Rank

_SHOWN_DIGITS = 3


@dataclass(frozen=True)
class Candidate:
    """A backbone whose pieces lie in a folder."""

    label: str
    settings: parameters.Backbone  # as the section `backbone` would name it, by its commit on a hub
    folder: Path
    record: BackboneRecord
    measured: Measured
    n_bytes: int  # of the pieces that ship
    obstacles: tuple[str, ...]  # why it cannot win; none: it can

    @property
    def megabytes(self) -> float:
        """The size of the pieces that ship."""
        return round(self.n_bytes / 1e6, _SHOWN_DIGITS)


def prepared(rank: Rank, export: Export, fit: Fit, layout: Layout, folder: Path) -> list[Candidate]:
    """Return the candidates, their pieces in folders of `folder`; ParamError if one does not exist."""
    cache = layout.cache if layout.keeps_backbones else None
    found = []
    for number, (label, given) in enumerate(zip(labels(rank.backbones), rank.backbones, strict=True)):
        place = folder / str(number)
        try:
            each = _settled(given, layout.weights)
            record, _ = make(each, fit, layout.weights, cache, place, lambda licence: None)
        except ParamError as error:
            check_known([given], "rank.backbones in params.yaml")
            raise ParamError(f"rank.backbones has '{label}': {error}") from error
        for warning in record.warnings:
            warn(f"{label}: {warning}")
        measured = measure.milliseconds(place, record, layout.cache)
        n_bytes = sum((place / name).stat().st_size for name in (RESIZE, BACKBONE))
        costs = _obstacles(record, measured.milliseconds, n_bytes / 1e6, rank, export)
        found.append(Candidate(label, each, place, record, measured, n_bytes, costs))
    return found


def check_known(backbones: Sequence[parameters.Backbone], where: str) -> None:
    """Raise ParamError for a name that is no network's. `where` it is given, for the message."""
    for each in backbones:
        if (
            each.is_onnx
            or is_on_hub(each.name)
            or {each.name, f"torchvision/{each.name}", f"timm/{each.name}"} & bundled.TABLE.keys()
        ):
            continue
        from headstart.backbones import networks  # with torch, which a network that is kept does not need

        if not networks.is_known(each.name):
            raise ParamError(f"'{each.name}' is not a known backbone.{networks.hint(each.name)} Mend it in {where}.")


def labels(backbones: Sequence[parameters.Backbone]) -> list[str]:
    """Return what each candidate is called: its name, and what tells it from others of that name.

    Of a URL it is the file alone: what follows may be a secret.
    """
    names = [each.name for each in backbones]
    found = []
    for each in backbones:
        told = [] if each.weights in ("auto", "bundled", "default") else [_file(each.weights)]
        told += [f"{each.input_px} px"] if each.input_px else []
        found.append(each.name + (f" ({', '.join(told)})" if told else ""))
    twice = {label for label in found if found.count(label) > 1}
    return [f"{label} #{number + 1}" if label in twice else label for number, label in enumerate(found)] or names


def _file(named: str) -> str:
    """Return the file's name of weights that a path or a URL names."""
    if not is_url(named):
        return Path(named).name
    parts = urlsplit(named)
    return PurePosixPath(parts.path).name or parts.hostname or "URL"


def _settled(given: parameters.Backbone, downloads: Path) -> parameters.Backbone:
    """Return a candidate with weights: bundled ones where there are some, and else the library's own.

    One on a hub is named by its commit, so that the stage `backbone` takes what was compared wherever it runs.
    """
    if is_on_hub(given.name):
        given = given.model_copy(update={"name": hub.by_commit(given.name, downloads, say)})
    if given.weights != "auto":
        return given
    try:
        bundled.of(given.name)
    except bundled.NoneError:
        return given.model_copy(update={"weights": "default"})
    return given.model_copy(update={"weights": "bundled"})


def _obstacles(
    record: BackboneRecord, milliseconds: float, megabytes: float, rank: Rank, export: Export
) -> tuple[str, ...]:
    found = []
    try:
        licences.check(Licence(record.licence, record.licence_source), record.name, export.licences)
    except ParamError:
        found.append(f"its licence is {record.licence}")
    if rank.max_ms is not None and milliseconds > rank.max_ms:
        found.append(f"it takes {milliseconds:.1f} ms")
    if rank.max_mb is not None and megabytes > rank.max_mb:
        found.append(f"it has {megabytes:.1f} MB")
    return tuple(found)
