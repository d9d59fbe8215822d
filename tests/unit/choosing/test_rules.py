"""The rules: each does what its paper says, and none names an image twice."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.choosing import rules
from headstart.choosing.copies import without_copies
from headstart.choosing.rules import RULES, Candidates, Rule, balanced, chosen, margins, order
from tests.support.images import photograph


def candidates(n_images: int = 60, n_classes: int = 3, seed: int = 0) -> Candidates:
    draw = np.random.default_rng(seed)
    return Candidates(draw.normal(size=(n_images, 8)).astype(np.float32), draw.dirichlet(np.ones(n_classes), n_images))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_names_as_many_images_as_it_is_asked_for_and_none_twice(rule: Rule) -> None:
    images, known = candidates(), np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    for n in (1, 20, 60, 100):
        chosen = order(rule, images, known, n, 0)
        assert len(set(chosen.tolist())) == len(chosen) == min(n, 60)
    assert (order(rule, images, known, 20, 3) == order(rule, images, known, 20, 3)).all()
    assert len(order(rule, images, known[:0], 20, 0)) == 20
    same = Candidates(np.ones((10, 8), np.float32), np.full((10, 3), 1 / 3))
    assert sorted(order(rule, same, known, 10, 0).tolist()) == list(range(10))


def test_margin_takes_what_the_head_is_least_sure_of() -> None:
    images = candidates()
    chosen = order("margin", images, images.features[:0], 10, 0)
    lead = margins(images.probabilities)
    assert lead[chosen].max() <= np.delete(lead, chosen).min()


def test_gradient_embeddings_are_never_written_out_but_are_the_same() -> None:
    """The squared distances that k-means++ draws by, from factors and from the embeddings themselves."""
    images = candidates(12)
    away, rows = rules._gradients(images)
    written = np.einsum("nc,nd->ncd", away, rows).reshape(12, -1)
    squares = (away**2).sum(1) * (rows**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * (away @ away.T) * (rows @ rows.T)
    assert distances == pytest.approx(((written[:, None] - written[None]) ** 2).sum(-1), abs=1e-9)


def test_core_set_keeps_its_distance_from_labelled_images() -> None:
    """Three heaps, one of them labelled: the first two images are of the other two."""
    centres = np.eye(3, 8)
    heaps = np.repeat(centres, 5, axis=0) + np.random.default_rng(0).normal(0, 0.01, (15, 8))
    images = Candidates(heaps.astype(np.float32), np.full((15, 2), 0.5))
    chosen = order("core-set", images, centres[:1].astype(np.float32), 2, 0)
    assert sorted(chosen // 5) == [1, 2]


def test_diverse_margin_takes_unsure_images_of_several_kinds() -> None:
    draw = np.random.default_rng(0)
    heaps = np.concatenate([np.eye(4, 8)[[kind] * n] for kind, n in enumerate((30, 4, 4, 4))])
    sure = np.concatenate([[0.5] * 42, [0.99] * 50])
    features = np.concatenate([heaps, draw.normal(size=(50, 8))]) + draw.normal(0, 0.01, (92, 8))
    images = Candidates(features.astype(np.float32), np.stack([sure, 1 - sure], 1))
    chosen = order("diverse margin", images, features[:0], 8, 0)
    assert (chosen < 42).all()
    assert (chosen >= 30).sum() >= 3, "k-means++ finds the small heaps"


def test_no_guessed_class_takes_more_than_twice_its_share_while_others_are_left() -> None:
    guesses = np.array([0] * 20 + [1] * 3)
    assert balanced(range(23), guesses, 4, 2) == [0, 1, 2, 3]
    chosen = balanced(range(23), guesses, 6, 4)
    assert [int(guesses[row]) for row in chosen] == [0, 0, 0, 1, 1, 1]
    assert len(balanced(range(23), np.zeros(23, int), 6, 4)) == 6


def test_copies_of_labelled_images_and_of_each_other_are_left_out() -> None:
    """Images 0 and 4 are copies of labelled ones, 3 of 1; 2 has the features of 1, and other pixels."""
    pictures = [photograph(number, 64, 64) for number in (9, 1, 2, 1, 8, 5)] + [
        photograph(number, 64, 64) for number in (9, 8)
    ]
    rows = np.random.default_rng(0).normal(size=(8, 16))
    rows[3] = rows[2] = rows[1]
    rows[0], rows[4] = rows[6], rows[7]
    found = without_copies(
        rows[:6], rows[6:], lambda some: np.stack([pictures[row] for row in some]), 0.9, np.full(6, 0.95)
    )
    assert found == [1, 2, 5]


def test_more_spare_images_do_not_widen_the_pool_of_diverse_margin() -> None:
    """Five times the wanted images are its pool, also when three times as many are ranked: else none has a margin."""
    images = candidates(200)
    rows = np.argsort(margins(images.probabilities), kind="stable")
    for seed in range(5):
        assert set(chosen("diverse margin", images, images.features[:0], 10, seed).rows) <= set(rows[:50].tolist())
    assert len(order("diverse margin", images, images.features[:0], 30, 0, wanted=2)) == 30


def test_copies_are_counted_and_their_places_are_filled() -> None:
    images = candidates(60)
    found = chosen("margin", images, images.features[:0], 10, 0, lambda ranked: list(range(0, len(ranked), 2)))
    assert (len(found.rows), found.n_ranked, found.n_copies) == (10, 30, 15)
    assert not set(found.rows) & set(order("margin", images, images.features[:0], 30, 0)[1::2].tolist())
