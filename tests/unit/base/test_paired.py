from __future__ import annotations

import numpy as np
import pytest

from headstart.base.paired import advantage


def test_an_advantage_is_the_paired_mean_and_its_error() -> None:
    random = np.random.default_rng(0)
    first, second = random.exponential(size=80), random.exponential(size=80) * 0.8
    found = advantage(first, second, np.arange(80))
    assert found.mean == pytest.approx((first - second).mean())
    assert found.standard_error == pytest.approx(np.std(first - second, ddof=1) / np.sqrt(80))


def test_images_of_one_group_make_an_advantage_less_sure() -> None:
    random = np.random.default_rng(0)
    differences = np.repeat(random.normal(size=20), 5)
    alone = advantage(differences, np.zeros(100), np.arange(100))
    grouped = advantage(differences, np.zeros(100), np.repeat(np.arange(20), 5))
    assert grouped.mean == alone.mean
    assert grouped.standard_error == pytest.approx(np.std(differences[::5], ddof=1) / np.sqrt(20))
    assert grouped.standard_error > 2 * alone.standard_error


def test_one_group_says_nothing() -> None:
    assert not advantage(np.ones(9), np.zeros(9), np.zeros(9)).is_clear(1)


def test_chance_seldom_looks_like_an_advantage_however_often_one_looks() -> None:
    random = np.random.default_rng(0)
    for n_looks in (1, 20):
        n_clear = 0
        for _ in range(300):
            losses = random.normal(size=(n_looks, 60))
            best = max((advantage(one, np.zeros(60), np.arange(60)) for one in losses), key=lambda a: a.mean)
            n_clear += best.is_clear(n_looks)
        assert n_clear / 300 < 0.1, n_looks
