"""Groups that nobody gave: bursts and series of one subject, by names, by the time in EXIF, and by near-identity."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import polars as pl

from headstart.auditing.duplicates import clusters as connected
from headstart.auditing.folder import GroupsRecord, no_groups
from headstart.auditing.neighbours import Neighbours, unit
from headstart.auditing.seen import Seen

_MIN_GROUPS = 5  # with several images each, that a way of naming has to give
_MIN_SHARE = 0.2  # of the images that are in them
_N_PERMUTATIONS = 200
_CLEAR = 0.25  # standard deviations that images of a group have to be nearer than others of their class
_BURST_S = 10.0  # seconds between two images of a burst
_MAX_NAMED = 4000  # images whose names are judged by their features
_RUN = 100  # of these, neighbours by path
_MAX_EXIF = 1000  # pairs, the nearest, whose EXIF data are read
_EXIF, _TIME, _SUBSECONDS, _MODEL = 0x8769, 0x9003, 0x9291, 0x0110

# How the name of a file may hold that of its series, the stem without folder and ending.
NAMINGS: dict[str, Callable[[str], str]] = {
    "the name without its last number": lambda stem: re.sub(r"[\s_\-.(]*\d+\)?$", "", stem),
    "the name up to its first separator": lambda stem: re.split(r"[\s_\-.]", stem)[0],
    "the name up to its last separator": lambda stem: re.sub(r"[\s_\-.][^\s_\-.]*$", "", stem),
}


class Naming(NamedTuple):
    """A way of naming that tells series apart."""

    words: str
    names: np.ndarray  # str [N], '' for an image in no series
    nearer: float  # standard deviations that images of a series are nearer than others of their class


def by_name(paths: Sequence[str], labels: np.ndarray, units: np.ndarray, seed: int) -> Naming | None:
    """Return the naming whose series are clearly nearer than chance by their features, the clearest; None if none is.

    `units` float32 [N, D] of length 1. Names are compared within a folder. Series that are shuffled within their class
    must never be as near in 200 trials.
    """
    cosines = units @ units.T
    found = [_judged(words, make, paths, labels, cosines, seed) for words, make in NAMINGS.items()]
    return max((each for each in found if each), key=lambda each: each.nearer, default=None)


def by_path(paths: Sequence[str], seed: int) -> np.ndarray:
    """Return the numbers of the images whose names are judged: all, or runs of neighbours by path, as series are."""
    order = np.array(sorted(range(len(paths)), key=lambda row: paths[row]), np.int64)
    runs = [order[start : start + _RUN] for start in range(0, len(order), _RUN)]
    drawn = np.random.default_rng(seed).permutation(len(runs))[: _MAX_NAMED // _RUN]
    return np.sort(np.concatenate([runs[number] for number in drawn]))


def taken_at(data: bytes) -> tuple[str, float] | None:
    """Return the camera and the second at which a photograph was taken, as its EXIF data say; None if they do not."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            exif = opened.getexif()
            inner = exif.get_ifd(_EXIF)
            taken = datetime.strptime(str(inner[_TIME]).strip("\x00 "), "%Y:%m:%d %H:%M:%S")
            part = float(f"0.{str(inner.get(_SUBSECONDS, '0')).strip(chr(0) + ' ') or '0'}")
            return str(exif.get(_MODEL, "")).strip("\x00 "), (taken - datetime(1970, 1, 1)).total_seconds() + part
    except Exception:  # whatever a damaged EXIF block raises: the image itself was checked by `validate`
        return None


def is_burst(one: tuple[str, float] | None, other: tuple[str, float] | None) -> bool:
    """Return whether two photographs are of one camera and seconds apart."""
    return bool(one and other and one[0] == other[0] and abs(one[1] - other[1]) <= _BURST_S)


def _judged(
    words: str, make: Callable[[str], str], paths: Sequence[str], labels: np.ndarray, cosines: np.ndarray, seed: int
) -> Naming | None:
    places = [PurePosixPath(path) for path in paths]
    stems = [make(place.stem) for place in places]
    names = np.array([f"{place.parent}/{stem}" if stem else "" for place, stem in zip(places, stems, strict=True)])
    kept, series, sizes = np.unique(names, return_inverse=True, return_counts=True)
    is_series = (sizes > 1) & (sizes <= max(2, len(names) // 20)) & (kept != "")
    if is_series.sum() < _MIN_GROUPS or sizes[is_series].sum() < _MIN_SHARE * len(names):
        return None
    some = np.flatnonzero(is_series[series])
    pairs, of_class = _pairs(series[some]), labels[some]
    seen = _nearness(cosines, some, pairs)
    draw = np.random.default_rng(seed)
    drawn = np.array([_nearness(cosines, some[_shuffled(of_class, draw)], pairs) for _ in range(_N_PERMUTATIONS)])
    among = _spread(cosines, some, of_class, draw)
    nearer = float((seen - drawn.mean()) / among)
    if seen <= drawn.max() or nearer < _CLEAR:
        return None
    return Naming(words, np.where(is_series[series], names, ""), nearer)


def _pairs(series: np.ndarray) -> np.ndarray:
    """Return int [2, P]: every two images of one series, of int [N]."""
    order = np.argsort(series, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(series[order])) + 1)
    return np.concatenate([each[np.array(np.triu_indices(len(each), 1))] for each in members], axis=1)


def _nearness(cosines: np.ndarray, rows: np.ndarray, pairs: np.ndarray) -> float:
    """Return the mean cosine of two different images of a series, where `rows` stand in the places of the images."""
    return float(cosines[rows[pairs[0]], rows[pairs[1]]].mean(dtype=np.float64))


def _shuffled(labels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return the rows in another order, each still of its class."""
    order = np.lexsort((draw.random(len(labels)), labels))
    found = np.empty(len(labels), np.int64)
    found[np.argsort(labels, kind="stable")] = order
    return found


def _spread(cosines: np.ndarray, rows: np.ndarray, labels: np.ndarray, draw: np.random.Generator) -> float:
    """Return the standard deviation of the cosine of two images of a class."""
    other = _shuffled(labels, draw)
    apart = np.flatnonzero(other != np.arange(len(other)))
    return float(max(cosines[rows[apart], rows[other[apart]]].std(), 1e-6)) if len(apart) else 1.0


def proposed(
    seen: Seen, near: Neighbours, clusters: Sequence[np.ndarray], seed: int
) -> tuple[GroupsRecord | None, pl.DataFrame]:
    """Return the groups that are proposed, in numbers and as a table; None where the data have groups or none is found.

    Two images are in one group if they are near-identical, if their names say so, or if one camera took them seconds
    apart. EXIF data are read of the nearest pairs alone.
    """
    if seen.has_groups:
        return None, no_groups()
    n_images, basis = len(seen), []
    joined = [np.stack([np.full(len(rows), rows[0]), rows], 1) for rows in clusters]
    of_data = seen.images.groups
    if n_new := sum(len(set(of_data[rows])) > 1 for rows in clusters):
        basis.append(f"{n_new} {'cluster' if n_new == 1 else 'clusters'} of near-identical images")
    some = by_path(seen.images.paths, seed)
    naming = by_name([seen.images.paths[row] for row in some], seen.labels[some], unit(seen.rows[some]), seed)
    if naming:
        pairs = _same_name(naming.words, seen.images.paths)
        joined.append(pairs)
        basis.append(f"{naming.words}, of images that are alike")
    if len(bursts := _bursts(seen, near)):
        joined.append(bursts)
        basis.append(f"{len(bursts)} pairs that one camera took within {_BURST_S:g} seconds")
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *joined])
    found = connected(pairs[pairs[:, 0] != pairs[:, 1]], n_images)
    groups = [rows for rows in found if len(set(of_data[rows])) > 1]  # of others it is decided
    if not groups:
        return None, no_groups()
    ids, paths = seen.images.image_ids, seen.images.paths
    rows = [(ids[row], paths[row], f"series {number}") for number, members in enumerate(groups, 1) for row in members]
    table = pl.DataFrame(rows, no_groups().schema, orient="row")
    return GroupsRecord(n_groups=len(groups), n_images=len(rows), basis=basis), table


def _same_name(words: str, paths: Sequence[str]) -> np.ndarray:
    """Return the pairs of images, int [P, 2], that a naming puts in one series."""
    first: dict[str, int] = {}
    pairs = []
    for row, path in enumerate(paths):
        place = PurePosixPath(path)
        if stem := NAMINGS[words](place.stem):
            pairs.append((first.setdefault(f"{place.parent}/{stem}", row), row))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _bursts(seen: Seen, near: Neighbours) -> np.ndarray:
    """Return the pairs of one camera and seconds apart among the nearest pairs, int [P, 2]."""
    pairs = np.stack([np.arange(len(seen)), near.rows[:, 0]], 1)
    pairs = np.sort(pairs[np.argsort(-near.cosines[:, 0], kind="stable")][:_MAX_EXIF], 1)
    pairs = np.unique(pairs[seen.labels[pairs[:, 0]] == seen.labels[pairs[:, 1]]], axis=0)
    taken = {int(row): taken_at(seen.file(int(row))) for row in np.unique(pairs)}
    kept: np.ndarray = pairs[[is_burst(taken[int(one)], taken[int(other)]) for one, other in pairs]]
    return kept
