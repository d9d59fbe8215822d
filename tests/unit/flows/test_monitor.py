"""The deployment `monitor` of `headstart schedule --monitor`, and its pictures."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from prefect.schedules import Interval
from pydantic import ValidationError

from flows import serve
from flows.monitor import Watching, over_time
from headstart.monitoring import reference
from headstart.monitoring.ledger import Look


def test_the_deployment_looks_at_the_folder_and_may_retrain() -> None:
    made = serve.watching(Interval(timedelta(hours=1)), "photos", "slack-webhook/team", True)
    assert made.name == "monitor"
    assert made.parameters == {"request": {"images": "photos", "notify": "slack-webhook/team", "retrain": True}}
    assert made.entrypoint == "flows.monitor.monitor"
    options = serve.parser().parse_args(["--monitor", "photos", "--monitor-every", "60", "--retrain"])
    assert (options.monitor, options.monitor_every, options.retrain) == ("photos", 60, True)


def test_a_form_without_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="images"):
        Watching()  # type: ignore[call-arg]


def test_figures_over_time_are_a_png() -> None:
    said = {"probabilities": np.full((30, 2), 0.5), "novelty": np.linspace(0, 1, 30)}
    known = reference.of(said, np.zeros(30, np.int64), 0.0, 0.99, "")
    looks = [Look(f"2026-01-0{day}", 10, -2.0 + day, 0.9, 0.9, 0.1, 0.0, None) for day in range(1, 5)]
    assert over_time(looks, known).startswith(b"\x89PNG")
