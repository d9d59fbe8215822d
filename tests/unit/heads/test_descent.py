from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from headstart.heads.descent import lbfgs

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def quadratic(condition: float) -> Function:
    """Return a convex quadratic function [30] whose curvatures span so many times the least."""
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.normal(size=(30, 30)))
    matrix = axes @ np.diag(np.geomspace(1, condition, 30)) @ axes.T
    at = random.normal(size=30)
    return lambda point: (0.5 * float((point - at) @ matrix @ (point - at)), matrix @ (point - at))


def log_sum_exp(point: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a smooth convex function [5, 3] that is not quadratic, and its gradient."""
    directions = np.random.default_rng(1).normal(size=(40, 15))
    inner = directions @ point.ravel() + np.linspace(-1, 1, 40)
    gradient = directions.T @ softmax(inner) + 1e-2 * point.ravel()
    return float(logsumexp(inner) + 5e-3 * np.square(point).sum()), gradient.reshape(point.shape)


def of_scipy(function: Function, start: np.ndarray) -> np.ndarray:
    """Return the minimum that scipy's L-BFGS-B finds."""

    def flat(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(point.reshape(start.shape))
        return value, gradient.ravel()

    found = minimize(flat, start.ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15})
    minimum: np.ndarray = found.x.reshape(start.shape)
    return minimum


@pytest.mark.parametrize(
    ("function", "start"),
    [
        (quadratic(1), np.zeros(30)),
        (quadratic(1e3), np.zeros(30)),
        (log_sum_exp, np.zeros((5, 3))),
        (log_sum_exp, np.full((5, 3), 30.0)),
    ],
    ids=["round", "long", "log-sum-exp", "from afar"],
)
def test_the_minimum_is_that_of_scipy(function: Function, start: np.ndarray) -> None:
    found, expected = lbfgs(function, start), of_scipy(function, start)
    assert found.shape == start.shape
    assert function(found)[0] - function(expected)[0] < 1e-6
    assert np.abs(found - expected).max() < 1e-2


def test_it_takes_about_as_many_steps_as_scipy() -> None:
    taken = {}
    for name, minimum in {"ours": lbfgs, "scipy": of_scipy}.items():
        counted: list[float] = []

        def counting(point: np.ndarray, counted: list[float] = counted) -> tuple[float, np.ndarray]:
            value, gradient = quadratic(100)(point)
            counted.append(value)
            return value, gradient

        minimum(counting, np.zeros(30))
        taken[name] = len(counted)
    assert taken["ours"] < 1.5 * taken["scipy"]


def test_a_minimum_is_left_where_it_is() -> None:
    function = quadratic(10)
    there = of_scipy(function, np.zeros(30))
    assert np.array_equal(lbfgs(function, there), there)


def test_a_function_that_float32_rounds_ends_without_a_lower_point() -> None:
    smooth = quadratic(1e3)

    def rounded(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = smooth(point)
        return float(np.float32(value + 1e3)), gradient

    found = lbfgs(rounded, np.zeros(30))
    assert smooth(found)[0] < 1e-2
