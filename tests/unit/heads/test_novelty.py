from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads import novelty
from headstart.heads.graph import head_graph
from headstart.heads.linear import Linear
from headstart.onnx import pieces, runtime


def clusters(n: int, n_classes: int, seed: int, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_classes, n)
    centres = np.random.default_rng(99).normal(size=(n_classes, 16))
    return (centres[labels] + spread * random.normal(size=(n, 16))).astype(np.float32), labels


def test_images_like_those_of_training_are_evenly_spread_and_others_are_at_the_end() -> None:
    features, labels = clusters(600, 3, 0)
    fitted = novelty.fit(features, labels, 3, np.arange(600) % 5)
    alike, _ = clusters(2000, 3, 1)
    assert np.quantile(fitted.of(alike), [0.1, 0.5, 0.9]).round(1).tolist() == [0.1, 0.5, 0.9]
    others = np.random.default_rng(2).normal(size=(500, 16)).astype(np.float32)
    assert np.mean(fitted.of(others) > 0.99) > 0.95


def test_images_of_a_class_that_was_left_out_are_new() -> None:
    features, labels = clusters(600, 3, 0)
    known = labels < 2
    fitted = novelty.fit(features[known], labels[known], 3, np.arange(known.sum()) % 5)
    assert np.mean(fitted.of(features[~known]) > 0.99) > 0.95
    assert not fitted.centres[:, 2].any()


@settings(max_examples=25)
@given(st.integers(4, 80), st.integers(1, 4), st.integers(0, 1000))
def test_the_graph_tells_the_same(n: int, n_classes: int, seed: int) -> None:
    features, labels = clusters(n, n_classes, seed)
    fitted = novelty.fit(features, labels, n_classes, np.arange(n) % 2)
    head = head_graph(Linear(np.zeros((16, n_classes)), np.zeros(n_classes)), fitted)
    asked = np.concatenate([features, np.zeros((1, 16), np.float32)])
    (found,) = runtime.session(pieces.to_bytes(head)).run(["novelty"], {"features": asked})
    apart = np.abs(found - fitted.of(asked))
    assert np.mean(apart > 1e-6) <= 0.1  # a cosine may lie on a mark, and rounding decides
    assert apart.max() <= 2 / len(fitted.similarities) + 1e-6


def test_a_scale_of_very_many_images_has_a_thousand_marks() -> None:
    features, labels = clusters(5000, 3, 0)
    assert len(novelty.fit(features, labels, 3, np.arange(5000) % 5).similarities) == 1000
