"""Bring the head to the images without labels, if it is known without their labels that this is better.

Reads the head, the features of train and val and those of the images without labels; writes artifacts/adapt/. Nothing
here reads the labels that a manifest gives to some of the latter, nor the test split. The stage is off without such
images, and without adapt.enabled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.base.files import replacing_folder, sums
from headstart.base.progress import say, show_table
from headstart.onnx import adapt_folder
from headstart.onnx.adapt_folder import AdaptRecord, TrialRecord, WayRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from headstart.adapting.choice import Choice
    from headstart.adapting.methods import Fit
    from headstart.layout import Layout
    from headstart.onnx.backbone_folder import LevelRecord
    from headstart.onnx.head_folder import HeadRecord
    from headstart.params import Params

_MAX_IMAGES = 4000  # of either side; more would not make the choice any surer
_MAX_NUMBERS = 20_000_000  # features of either side that are held in memory
_MEMORY_MB = 4096  # of a fit


def run(params: Params, layout: Layout) -> None:
    """Try every way, write the record and the adapted head, if any; or write that the stage is off."""
    if not params.adapt.enabled:
        adapt_folder.write_off(layout.adapt, "Nothing was tried: adapt.enabled is false.")
        return
    from headstart.base import unlabelled

    if not unlabelled.read_record(layout).n_images:
        adapt_folder.write_off(layout.adapt, "Nothing was tried: there are no images without labels.")
        return
    _adapt(params, layout)


def _adapt(params: Params, layout: Layout) -> None:
    import numpy as np

    from headstart.adapting import moved
    from headstart.adapting.choice import choose
    from headstart.adapting.methods import METHODS, Domains
    from headstart.base import dataset, unlabelled
    from headstart.base.dataset import TRAIN, VAL
    from headstart.embedding import features
    from headstart.heads.folds import draw
    from headstart.heads.graph import head_graph
    from headstart.onnx import head_folder
    from headstart.onnx.pieces import to_bytes

    settings, record = params.adapt, head_folder.read(layout.head)
    images = dataset.read(layout).of(TRAIN, VAL)
    cached = features.opened(layout).at(record.levels)
    read = [level for level in cached.record.levels if level.name in record.levels]
    levels = _side_by_side(read)
    n_most = max(100, min(_MAX_IMAGES, _MAX_NUMBERS // (levels[-1].start + levels[-1].width)))
    images = images[draw(images.labels, images.groups, n_most, settings.seed)]
    image_ids = unlabelled.read(layout).image_ids
    some = np.sort(np.random.default_rng(settings.seed).permutation(len(image_ids))[:n_most])
    elsewhere = features.opened(layout.of_unlabelled()).at(record.levels)
    head, novelty = moved.read(head_folder.piece(layout.head))
    domains = Domains(
        source=cached.read(images.image_ids).astype(np.float64),
        labels=images.labels,
        target=elsewhere.read([image_ids[row] for row in some]).astype(np.float64),
        head=head,
        fit=_fitting(record, levels),
    )
    methods = list(METHODS) if settings.methods == "auto" else list(settings.methods)
    columns = [slice(level.start, level.start + level.width) for level in levels]
    choice = choose(domains, columns, images.groups, methods, settings.choose_by, settings.seed)
    with replacing_folder(layout.adapt) as folder:
        if choice.method != adapt_folder.NONE:
            (folder / adapt_folder.HEAD).write_bytes(to_bytes(head_graph(choice.adapted.whole, novelty)))
        told = _record(choice, settings.choose_by, len(images), len(some))
        adapt_folder.write(folder, told.model_copy(update={"files": sums(folder)}))
    if choice.figures:
        show_table("adapt", [each._asdict() for each in choice.figures], "Ways to adapt, judged without labels")
    say(choice.why)


def _side_by_side(read: Sequence[LevelRecord]) -> list[LevelRecord]:
    """Return the levels with the columns that they have where no other level lies between."""
    levels, start = [], 0
    for level in read:
        levels.append(level.model_copy(update={"start": start}))
        start += level.width
    return levels


def _fitting(record: HeadRecord, levels: Sequence[LevelRecord]) -> Fit:
    """Return what fits a head of the same recipe, calibration included."""
    import numpy as np

    from headstart.heads.contract import Fitted
    from headstart.heads.design import Source
    from headstart.heads.probe import probe

    def fit(rows: np.ndarray, labels: np.ndarray) -> Fitted:
        source = Source(rows.astype(np.float32), None, labels, np.arange(len(labels)))
        return probe(record, record.recipe, source, levels, _MEMORY_MB)[0]

    return fit


def _record(choice: Choice, choose_by: str, n_source: int, n_target: int) -> AdaptRecord:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(min(value, 1e9), 6)

    ways = [
        WayRecord(
            method=each.method,
            score=round(each.score, 6),
            gain=round(each.gain, 6),
            standard_error=round(min(each.standard_error, 1e9), 6),
        )
        for each in choice.figures
    ]
    trial = TrialRecord(
        choose_by=choose_by,
        auc=rounded(choice.auc),
        p_value=rounded(choice.p_value),
        ways=ways,
        n_source=n_source,
        n_target=n_target,
    )
    return AdaptRecord(chosen=choice.method, why=choice.why, trial=trial, files={})
