from __future__ import annotations

from pathlib import Path

import pytest

from headstart.tuning.lr_range import LOWEST, N_STEPS, Point, plot, proposal, range_test
from tests.support.training import images, network, pixel_feed, recipe


def test_the_rate_grows_until_the_loss_has_left_its_lowest_value_behind(tmp_path: Path) -> None:
    net = network()
    chosen = recipe(tmp_path, net, unfreeze=2, optimizer="sgd", momentum=0.9, clip_norm=None)
    points = range_test(net, images(20), chosen, pixel_feed(net)(chosen.phases[0]), lambda n: None)
    rates = [point.learning_rate for point in points]
    assert rates == sorted(rates)
    assert rates[0] == LOWEST
    assert 20 < len(points) <= N_STEPS
    assert points[0].loss == pytest.approx(points[0].smoothed_loss)
    assert proposal(points) <= rates[-1] / 10


def test_a_tenth_of_the_best_rate_is_proposed() -> None:
    points = [Point(10.0**-power, 1.0, abs(power - 2.5) + 1) for power in range(6, 0, -1)]
    assert proposal(points) in (1e-3, 1e-4)
    assert proposal([*points, Point(0.034567, 0.1, 0.1)]) == 0.0035


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    points = [Point(10.0**-power, 1.0 / power, 1.0 / power) for power in range(6, 0, -1)]
    plot(points, 1e-3, tmp_path / "range.svg")
    text = (tmp_path / "range.svg").read_text()
    assert text.startswith("<?xml")
    assert "proposed: 0.001" in text or "<path" in text
