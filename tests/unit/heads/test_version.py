"""A finished head is kept while `contract.VERSION` is the same, so other results need another version."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.special import softmax

from headstart.heads import blend, contract, learning_curve, novelty
from headstart.heads.contract import Training
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.heads.sweep import Selection
from headstart.onnx import pieces, runtime
from tests.support.heads import clusters, level_sets, select, source_of

N_CLASSES = 4
GROUPS = np.arange(300) // 3
LEVELS = {"last": slice(8), "other": slice(6, 16)}
LABELS = GROUPS % N_CLASSES
KINDS_OF = {name: [kind] for name, kind in KINDS.items()} | {
    "several": [kind for name, kind in KINDS.items() if name != "mlp"],
    blend.NAME: [KINDS["ridge"], KINDS["lda"]],
}


def features_of(name: str) -> np.ndarray:
    """Return float32 [300, 16]: clusters, or what no set of levels tells whole."""
    features, dealt = clusters(1200, N_CLASSES, 16, noise=2)
    found = np.zeros((300, 16), np.float32)
    for label in range(N_CLASSES):
        own = np.flatnonzero(np.equal(LABELS, label))
        found[own] = features[dealt == label][: len(own)]
    if name == blend.NAME:
        found[LABELS < 2, 8:] = features[:300][LABELS < 2, 8:]
        found[LABELS >= 2, :8] = features[:300][LABELS >= 2, :8]
    return found


def selected(name: str) -> Selection:
    source = source_of(features_of(name), LABELS, GROUPS)
    training = Training(label_smoothing=0.05, dropout=0.1, seed=3)
    return select(
        source,
        kinds=KINDS_OF[name],
        level_sets=level_sets(LEVELS, 16),
        seed=3,
        training=training,
        with_blend=name not in KINDS,
    )


def computed(name: str) -> tuple[dict[str, object], list[float]]:
    """Return what is held to the last digit, and what is held to a tolerance."""
    features, selection = features_of(name), selected(name)
    source = source_of(features, LABELS, GROUPS)
    curve = learning_curve.measure(selection, source, N_CLASSES, seed=3, memory_mb=1000).points
    read = features[:, selection.columns]
    scale = novelty.fit(read, LABELS, N_CLASSES, selection.fold_of)
    graph = head_graph(selection.head, scale)
    session = runtime.session(pieces.to_bytes(graph))
    probabilities, _, unlike = session.run(None, {"features": read})
    chosen, nested = selection.chosen, selection.nested
    assert nested is not None
    assert np.abs(probabilities - softmax(selection.head.scores(read), axis=1)).max() < 1e-5
    assert [output.name for output in session.get_outputs()] == ["probabilities", "label_index", "novelty"]
    nodes = [node.op_type for node in graph.graph.node]
    assert nodes[-len(NODES) :] == NODES
    found: dict[str, object] = {
        "version": contract.VERSION,
        "folds": hashlib.sha256(selection.fold_of.astype(np.int64).tobytes()).hexdigest()[:12],
        "chosen": (chosen.kind, chosen.levels, chosen.strength, chosen.n_numbers),
        "members": [(each.kind, each.levels, each.strength) for each in selection.members],
        "candidates": len(selection.candidates),
        "agreeing": nested.n_agreeing,
        "marks": len(scale.similarities),
        "nodes": " ".join(nodes[: -len(NODES)]),
        "learned from": [point.n_images for point in curve],
    }
    figures = [
        selection.temperature,
        chosen.cv_log_loss,
        chosen.cv_log_loss_se,
        nested.log_loss,
        nested.accuracy,
        *(point.log_loss for point in curve),
        float(probabilities.max(1).mean()),
        float(unlike.mean()),
        float(unlike.std()),
        *(each.weight for each in selection.members),
    ]
    return found, figures


@pytest.mark.parametrize("name", KINDS_OF)
def test_what_train_head_computes_is_what_this_version_has_computed_before(name: str) -> None:
    """Where this fails on purpose: increment contract.VERSION, and write the new results here."""
    found, figures = computed(name)
    assert found == KNOWN[name]
    assert figures == pytest.approx(FIGURES[name], abs=3e-3)


NODES = ["Softmax", "ArgMax", "LpNormalization", "MatMul", "ReduceMax", "Less", "Cast", "ReduceMean"]
KNOWN: dict[str, dict[str, object]] = {
    "softmax": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("softmax", "other", 0.1, 44),
        "members": [("softmax", ("other",), 0.1)],
        "candidates": 6,
        "agreeing": 3,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "svm": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("svm", "other", 1.0, 44),
        "members": [("svm", ("other",), 1.0)],
        "candidates": 6,
        "agreeing": 3,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "ridge": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("ridge", "other", 1.0, 44),
        "members": [("ridge", ("other",), 1.0)],
        "candidates": 6,
        "agreeing": 3,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "lda": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("lda", "other", 0.5, 44),
        "members": [("lda", ("other",), 0.5)],
        "candidates": 10,
        "agreeing": 3,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "prototype": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("prototype", "other", 0.0, 44),
        "members": [("prototype", ("other",), 0.0)],
        "candidates": 2,
        "agreeing": 2,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "mlp": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("mlp", "last", 1.0, 1668),
        "members": [("mlp", ("last",), 1.0)],
        "candidates": 4,
        "agreeing": 2,
        "marks": 300,
        "nodes": "Gemm Relu Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "knn": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("knn", "other", 25.0, 4220),
        "members": [("knn", ("other",), 25.0)],
        "candidates": 6,
        "agreeing": 3,
        "marks": 300,
        "nodes": "Sub Div LpNormalization MatMul TopK Gather ReduceSum Add Log Div Add",
        "learned from": [24, 54, 111, 225],
    },
    "several": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("blend", "of several", 0.0, 68),
        "members": [("prototype", ("last",), 0.0), ("lda", ("other",), 0.5)],
        "candidates": 37,
        "agreeing": 4,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
    "blend": {
        "version": "7",
        "folds": "5db51e1b5909",
        "chosen": ("blend", "of several", 0.0, 68),
        "members": [("lda", ("last",), 0.0), ("lda", ("other",), 0.2)],
        "candidates": 17,
        "agreeing": 4,
        "marks": 300,
        "nodes": "Gemm",
        "learned from": [24, 54, 111, 225],
    },
}
FIGURES: dict[str, list[float]] = {
    "softmax": [0.591, 0.879, 0.046, 0.954, 0.577, 1.442, 1.244, 1.041, 0.879, 0.641, 0.485, 0.283, 1.0],
    "svm": [0.286, 0.88, 0.047, 0.955, 0.58, 1.439, 1.244, 1.035, 0.88, 0.642, 0.485, 0.283, 1.0],
    "ridge": [1.0, 0.878, 0.049, 0.949, 0.58, 1.42, 1.358, 1.084, 0.878, 0.654, 0.485, 0.283, 1.0],
    "lda": [1.0, 0.877, 0.05, 0.958, 0.577, 1.677, 1.294, 1.057, 0.877, 0.665, 0.485, 0.283, 1.0],
    "prototype": [0.808, 0.875, 0.047, 0.968, 0.563, 1.235, 1.06, 0.969, 0.875, 0.656, 0.485, 0.283, 1.0],
    "mlp": [0.86, 0.961, 0.047, 0.96, 0.6, 1.521, 1.342, 1.112, 0.961, 0.631, 0.495, 0.291, 1.0],
    "knn": [0.533, 0.887, 0.044, 1.008, 0.6, 1.386, 1.347, 1.114, 0.887, 0.651, 0.485, 0.283, 1.0],
    "several": [0.63, 0.699, 0.05, 0.711, 0.72, 1.329, 1.031, 0.832, 0.699, 0.734, 0.485, 0.283, 0.5, 0.5],
    "blend": [0.653, 0.99, 0.041, 1.044, 0.58, 2.104, 1.506, 1.184, 0.99, 0.59, 0.495, 0.284, 0.333, 0.667],
}
