"""A finished head is kept while `contract.VERSION` is the same, so other results need another version."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.special import softmax

from headstart.heads import contract, learning_curve, novelty, sweep
from headstart.heads.design import Source
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.onnx import pieces, runtime

N_CLASSES, N_FEATURES = 4, 12


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return overlapping clusters, float32 [300, 12] of unlike scales, labels int [300], and groups of three."""
    random = np.random.default_rng(0)
    groups = np.arange(300) // 3
    labels = groups % N_CLASSES
    centres = np.random.default_rng(7).normal(size=(N_CLASSES, N_FEATURES))
    features = centres[labels] + 1.2 * random.normal(size=(300, N_FEATURES))
    return (features * np.logspace(-1, 1, N_FEATURES) + 3).astype(np.float32), labels, groups


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_train_head_computes_is_what_this_version_has_computed_before(kind: contract.Kind) -> None:
    """Where this fails on purpose: increment contract.VERSION, and write the new results here."""
    features, labels, groups = data()
    given = {"seed": 3, "memory_mb": 1000}
    source = Source(features, None, labels)
    selection = sweep.select(source, groups, N_CLASSES, kind=kind, strengths=[0.01, 0.1, 1.0], folds=4, **given)
    curve = learning_curve.measure(source, groups, N_CLASSES, selection, **given)
    scale = novelty.fit(features, labels, N_CLASSES, selection.fold_of)
    graph = head_graph(selection.head, scale)
    session = runtime.session(pieces.to_bytes(graph))
    probabilities, _, unlike = session.run(None, {"features": features})

    assert np.abs(probabilities - softmax(selection.head.scores(features), axis=1)).max() < 1e-5
    folds = hashlib.sha256(selection.fold_of.astype(np.int64).tobytes()).hexdigest()[:12]
    found = {
        "version": contract.VERSION,
        "words": kind.WORDS,
        "folds": folds,
        "strength": selection.chosen.strength,
        "outputs": [output.name for output in session.get_outputs()],
        "nodes": [node.op_type for node in graph.graph.node],
        "learned from": [point.n_images for point in curve],
    }
    figures = [
        selection.chosen.temperature,
        selection.chosen.cv_log_loss,
        *(point.log_loss for point in curve),
        float(probabilities.max(1).mean()),
        float(unlike.mean()),
        float(unlike.std()),
        float(len(scale.similarities)),
    ]
    assert found == KNOWN[kind.NAME]
    assert figures == pytest.approx(FIGURES[kind.NAME], abs=3e-3)


KNOWN: dict[str, dict[str, object]] = {
    "softmax": {
        "version": "1",
        "words": "multinomial logistic regression, L2, standardiser and temperature folded in",
        "folds": "4c3a37e8cfd5",
        "strength": 0.01,
        "outputs": ["probabilities", "label_index", "novelty"],
        "nodes": ["Gemm", "Softmax", "ArgMax", "LpNormalization", "MatMul", "ReduceMax", "Less", "Cast", "ReduceMean"],
        "learned from": [24, 54, 111, 225],
    }
}
FIGURES: dict[str, list[float]] = {
    "softmax": [0.7336, 0.3164, 0.6041, 0.5932, 0.3719, 0.3164, 0.8863, 0.4829, 0.2894, 300.0]
}
