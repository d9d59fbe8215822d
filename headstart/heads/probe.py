"""The chosen kind of head, fitted on train alone: stages compare networks with it on validation.

The head that ships was fitted on train and val, so validation cannot judge it.
"""

from __future__ import annotations

from headstart.heads.contract import Fitted
from headstart.heads.design import Budget, Source
from headstart.heads.kinds import KINDS
from headstart.heads.sweep import fit
from headstart.onnx.head_folder import HeadRecord


def probe(record: HeadRecord, source: Source, memory_mb: int) -> Fitted:
    """Return a head of the record's kind, strength and temperature, fitted on `source` alone."""
    hold = Budget(memory_mb).holds(len(source.labels) * source.per_image, source.n_features)
    head = fit(KINDS[record.kind], source, len(record.classes), record.strength, hold=hold)
    return head.calibrated(record.temperature)
