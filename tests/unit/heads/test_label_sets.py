"""Label sets of the head that ships, by the out-of-fold scores of the selection, on images that nothing has seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from headstart.base import label_sets
from headstart.heads.kinds import KINDS
from tests.support.heads import clusters, select, source_of

N_TRAIN, N_NEW, N_CLASSES, N_DRAWS, COVERAGE = 60, 1000, 4, 60, 0.9
TRIED = [KINDS[name] for name in ("ridge", "lda", "prototype")]


@pytest.mark.slow
def test_out_of_fold_scores_hold_as_often_as_asked_and_those_of_learned_images_do_not() -> None:
    """The choice and the temperature have seen the same images, and folds learn from fewer: no exact bound holds."""
    held_out, learned = [], []
    for seed in range(N_DRAWS):
        features, labels = clusters(N_TRAIN + N_NEW, N_CLASSES, 16, noise=2.5, seed=seed)
        order = np.random.default_rng(seed).permutation(len(labels))
        features, labels = features[order], labels[order]
        seen, of_seen, of_new = features[:N_TRAIN], labels[:N_TRAIN], labels[N_TRAIN:]
        found = select(source_of(seen, of_seen), kinds=TRIED, seed=seed)
        new = softmax(found.head.scores(features[N_TRAIN:]), axis=1).astype(np.float32)
        assert (new.argmax(1) == of_new).mean() < COVERAGE
        ours = (found.out_of_fold, of_seen[found.validated], held_out), (found.head.scores(seen), of_seen, learned)
        for scores, truth, into in ours:
            own = label_sets.mass_above(softmax(scores, axis=1).astype(np.float32))[np.arange(len(truth)), truth]
            limits = label_sets.quantiles(own, truth, np.arange(len(truth)), N_CLASSES, COVERAGE)
            into.append(label_sets.members(new, limits)[np.arange(N_NEW), of_new].mean())
    standard_error = np.std(held_out) / N_DRAWS**0.5
    assert standard_error < 0.01
    assert COVERAGE - 3 * standard_error < np.mean(held_out) < COVERAGE + 0.03
    assert np.mean(learned) < COVERAGE - 0.03
