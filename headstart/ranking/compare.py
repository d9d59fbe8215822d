"""Compare candidates: embed, score, race, and name the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.base.errors import ParamError
from headstart.base.progress import bar
from headstart.ranking import score
from headstart.ranking.candidates import Candidate
from headstart.ranking.embedding import Embedder
from headstart.ranking.folder import Entry, RankingRecord
from headstart.ranking.measure import THREADS
from headstart.ranking.parts import growing
from headstart.ranking.racing import Result, race
from headstart.ranking.score import Images, Scored

if TYPE_CHECKING:
    from headstart.base import dataset
    from headstart.params import Rank, TrainHead

_DIGITS = 6


class _Seen(NamedTuple):
    """A candidate on a part of the images."""

    scored: Scored
    images: Images
    last: np.ndarray  # float [n, last]: the last level of its features


@dataclass
class _Judge:
    """Embeds and scores candidates; what is known of the last part that each saw is kept."""

    embedders: Sequence[Embedder]
    images: dataset.Images
    n_classes: int
    settings: TrainHead
    seen: dict[int, _Seen]

    def __call__(self, number: int, part: np.ndarray) -> np.ndarray:
        """Return the criterion of each image of a part, float64 [n]."""
        embedder, some = self.embedders[number], self.images[part]
        record = embedder.candidate.record
        with bar(f"embedding by {embedder.candidate.label}", len(some), "image") as advance:
            features = embedder(some.where, advance)
        check_finite(features, embedder.candidate.label, embedder.computing.dtype)
        images = Images(some.labels, some.groups, self.n_classes)
        chosen = score.selection(features, images, record.levels, self.settings)
        scored = score.scored(chosen, images, self.settings.select_by)
        self.seen[number] = _Seen(scored, images, score.last_of(features, record.levels))
        return scored.values


def check_finite(features: np.ndarray, label: str, dtype: str) -> None:
    """Raise ParamError if float [N, D] of a candidate, computed as embed.dtype says, has NaN or infinite values."""
    n_bad = int((~np.isfinite(features).all(axis=1)).sum())
    if n_bad:
        other = "Set embed.dtype to float32, or remove" if dtype != "float32" else "Remove"
        raise ParamError(
            f"rank.backbones has '{label}', whose features of {n_bad} of {len(features)} images are not finite, with"
            f" embed.dtype {dtype}. Finite ones were expected. {other} it from rank.backbones, in params.yaml."
        )


def compare(
    candidates: Sequence[Candidate],
    embedder: Callable[[Candidate], Embedder],
    images: dataset.Images,
    n_classes: int,
    rank: Rank,
    settings: TrainHead,
) -> tuple[RankingRecord, Candidate | None]:
    """Return the ranking and the winner: the lowest criterion of those that may win. None may: all race, none wins."""
    widths = [each.record.n_features for each in candidates]
    n_images = min(rank.max_images, score.most_images(widths, n_classes, settings))
    parts = growing(images.labels, images.groups, n_images, settings.folds, rank.seed)
    if not rank.racing:
        parts = parts[-1:]
    embedders = [embedder(each) for each in candidates]
    judge = _Judge(embedders, images, n_classes, settings, {})
    may_win = {number for number, each in enumerate(candidates) if not each.obstacles}
    racing = may_win or set(range(len(candidates)))
    results = race(len(candidates), parts, images.groups, judge, racing)
    entries = [_entry(candidates[each.number], each, judge.seen[each.number]) for each in results]
    order = sorted(results, key=lambda each: (each.is_out, -each.n_images, float(each.values.mean())))
    leader = next(each.number for each in order if each.behind is None and not each.is_out)
    winner = candidates[leader] if may_win else None
    measured = candidates[leader].measured
    record = RankingRecord(
        entries=[entries[each.number] for each in order],
        winner=winner.label if winner else None,
        criterion=settings.select_by,
        parts=[len(part) for part in parts],
        n_classes=n_classes,
        processor=measured.processor,
        runtime=measured.runtime,
        threads=THREADS,
    )
    return record, winner


def _entry(candidate: Candidate, result: Result, seen: _Seen) -> Entry:
    scored, behind, record = seen.scored, result.behind, candidate.record
    features = score.alone(seen.last, seen.images)
    return Entry(
        label=candidate.label,
        name=record.name,
        weights=record.weights,
        licence=record.licence,
        obstacles=list(candidate.obstacles),
        input_px=record.preprocessing.input_px,
        n_features=record.n_features,
        megabytes=candidate.megabytes,
        milliseconds=candidate.measured.milliseconds,
        n_images=result.n_images,
        accuracy=round(scored.accuracy, _DIGITS),
        accuracy_low=round(scored.interval.low, _DIGITS),
        accuracy_high=round(scored.interval.high, _DIGITS),
        log_loss=round(scored.log_loss, _DIGITS),
        log_loss_se=round(scored.log_loss_se, _DIGITS),
        head=f"{scored.kind} on {scored.levels}",
        behind=None if behind is None else round(behind.mean, _DIGITS),
        behind_se=None if behind is None else round(min(behind.standard_error, 1e6), _DIGITS),
        is_out=result.is_out,
        knn=round(features.knn, _DIGITS),
        logme=round(features.logme, _DIGITS),
        h_score=round(features.h_score, _DIGITS),
    )
