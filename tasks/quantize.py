"""Quantise the backbone that ships to 8-bit integers, and keep the fastest way with an acceptable loss of accuracy.

Reads the pixels and the chosen candidate's pieces; writes artifacts/int8/. Ranges are calibrated on training images.
Accuracies are compared on validation images, with a head that was not trained on them. Nothing here reads the test
split. Without export.int8, the stage is off and imports nothing that quantisation would need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.base.files import replacing_folder
from headstart.base.progress import say
from headstart.evaluation import folder as evaluation
from headstart.evaluation.candidates import pieces_of
from headstart.handover import folder
from headstart.handover.folder import Int8Record

if TYPE_CHECKING:
    from headstart.heads.contract import Fitted
    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Try every way, then write the record and the backbone that ships, if any; or write that the stage is off."""
    chosen = evaluation.choice(layout.evaluation).chosen
    pieces = pieces_of(layout, chosen)
    backbone = pieces.network()
    float_bytes = len(backbone) + pieces.resize.stat().st_size + pieces.head.stat().st_size
    if not params.export.int8:
        why = "No int8 model is shipped: export.int8 is false, so none was tried."
        with replacing_folder(layout.int8) as beside:
            folder.write_int8(
                beside, Int8Record(chosen=None, backbone_sha256=None, why=why, float_bytes=float_bytes, trial=None)
            )
        return

    from headstart.base import dataset
    from headstart.base.dataset import TRAIN, VAL
    from headstart.base.progress import show_table
    from headstart.embedding import pixels
    from headstart.handover.int8_trial import Judge, onnx_head, try_every_way
    from headstart.handover.quantization import N_CALIBRATION

    data, source = dataset.read(layout), pixels.opened(layout)
    train, val = data.of(TRAIN), data.of(VAL)
    head = onnx_head(pieces.head) if chosen == "tuned" else _probe(params, layout).scores
    calibration = source(train[:N_CALIBRATION].where)
    judge = Judge(source, val, head)
    trial = try_every_way(backbone, calibration, judge, params.export.int8_max_accuracy_drop)
    with replacing_folder(layout.int8) as beside:
        if trial.model is not None:
            (beside / folder.INT8_BACKBONE).write_bytes(trial.model)
        folder.write_int8(beside, trial.record(float_bytes))
    if trial.tries:
        rows = [each.model_dump() for each in trial.tries]
        show_table("int8", rows, "Ways to quantise, judged on validation images")
    say(trial.why)


def _probe(params: Params, layout: Layout) -> Fitted:
    """Return a head fitted on train alone, since the one that ships is fitted on validation images too."""
    from headstart.base import dataset
    from headstart.base.dataset import TRAIN
    from headstart.embedding import features
    from headstart.heads.design import Source
    from headstart.heads.probe import probe
    from headstart.onnx import head_folder

    train, record, cached = dataset.read(layout).of(TRAIN), head_folder.read(layout.head), features.opened(layout)
    source = Source(cached.rows(train.image_ids), cached.view_rows(train.image_ids), train.labels, train.groups)
    head, _ = probe(record, record.recipe, source, cached.record.levels, params.train_head.memory_mb)
    return head
