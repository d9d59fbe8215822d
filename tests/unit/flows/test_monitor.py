"""The deployment `monitor` of `headstart schedule --monitor`, and its pictures."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from prefect import State
from prefect.schedules import Interval
from prefect.states import Completed, Failed
from pydantic import ValidationError

from flows import monitor as flow
from flows import serve
from flows.monitor import Watching, over_time
from flows.request import Request
from headstart.monitoring import ledger as ledgers
from headstart.monitoring import reference
from headstart.monitoring.ledger import Alarm, Ledger, Look


def test_the_deployment_looks_at_the_folder_and_may_retrain() -> None:
    request = Watching(images="photos", notify="slack-webhook/team", retrain=True, push=True)
    made = serve.watching(Interval(timedelta(hours=1)), request)
    assert made.name == "monitor"
    told = {"images": "photos", "notify": "slack-webhook/team", "retrain": True, "push": True}
    assert made.parameters == {"request": told}
    assert made.entrypoint == "flows.monitor.monitor"
    options = serve.parser().parse_args(["--monitor", "photos", "--monitor-every", "60", "--retrain"])
    assert (options.monitor, options.monitor_every, options.retrain) == ("photos", 60, True)


@pytest.mark.parametrize("option", ["--monitor-every", "--interval", "--new-data"])
@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1e300", "1e-9", "hourly"])
def test_an_interval_that_is_none_is_told(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.parser().parse_args([f"{option}={text}"])
    assert f"'{text}' is not an interval. A number of seconds above 0 was expected" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--retrain", "--monitor-every=60"])
def test_what_needs_a_folder_to_watch_says_so(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([option]) == 1
    assert f"{option.split('=')[0]} needs a folder in which to look for drift" in capsys.readouterr().err


class Following:
    """What follows an alarm, with a service and a pipeline that work or do not."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.told, self.asked = path, list[str](), list[Request]()
        self.service_works = self.pipeline_works = True
        said = {"probabilities": np.full((30, 2), 0.5), "novelty": np.linspace(0, 1, 30)}
        ledger = Ledger.begun(reference.of(said, np.zeros(30, np.int64), 0.0, 0.99, "a" * 64), 0.01, 0)
        ledger.alarm = Alarm("novelty", 7, "x.jpg", "2026-01-01")
        ledger.write(path)
        monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("tests"))
        monkeypatch.setattr(flow, "pipeline", self.pipeline)
        monkeypatch.setattr(flow.notify, "block", lambda name: SimpleNamespace(notify=self.tell))

    def tell(self, text: str, subject: str) -> None:
        if not self.service_works:
            raise RuntimeError("https://hooks.example/secret answers 500")
        self.told.append(text)

    def pipeline(self, request: Request, return_state: bool) -> State[None]:
        self.asked.append(request)
        return Completed(message="trained") if self.pipeline_works else Failed(message="no images")

    def look(self, **options: bool) -> State[None]:
        ledger = ledgers.read(self.path)
        assert ledger is not None
        found = cast("flow.Found", SimpleNamespace(ledger=ledger, path=self.path))
        request = Watching.model_validate({"images": "photos", "notify": "slack-webhook/team", **options})
        return flow.followed(request, found, "drift")


@pytest.fixture
def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Following:
    return Following(tmp_path / "ledger.json", monkeypatch)


def test_after_an_alarm_people_are_told_once_and_the_pipeline_runs_once(following: Following) -> None:
    state = following.look(retrain=True, pull=True, push=True)
    assert (state.name, state.message) == ("Drift", "drift; the pipeline ran: trained")
    assert following.asked == [Request(note="drift", pull=True, push=True, notify="slack-webhook/team")]
    state = following.look(retrain=True)
    assert (state.name, state.message) == ("Drift", "drift")
    assert (len(following.told), len(following.asked)) == (1, 1)


def test_a_service_that_fails_stops_no_retraining_and_is_asked_again(following: Following) -> None:
    following.service_works = False
    state = following.look(retrain=True)
    assert state.name == "Drift"
    assert state.message == "drift; slack-webhook/team was not notified (RuntimeError); the pipeline ran: trained"
    following.service_works = True
    following.look(retrain=True)
    assert (len(following.told), len(following.asked)) == (1, 1)


def test_retraining_that_fails_fails_the_look_and_is_tried_again(following: Following) -> None:
    following.pipeline_works = False
    state = following.look(retrain=True)
    assert state.is_failed()
    assert state.message == "drift; the pipeline failed, and the next look tries again: no images"
    following.pipeline_works = True
    assert following.look(retrain=True).name == "Drift"
    assert (len(following.told), len(following.asked)) == (1, 2)


def test_the_ledger_of_another_model_is_not_marked(following: Following, tmp_path: Path) -> None:
    """Retraining may put a new model, whose ledger may be there by the time that the pipeline has ended."""
    there = ledgers.read(following.path)
    assert there is not None
    replace(there, model_sha256="b" * 64).write(following.path)
    flow.noted(cast("flow.Found", SimpleNamespace(ledger=there, path=following.path)), retrained=True)
    found = ledgers.read(following.path)
    assert found is not None
    assert not found.retrained


def test_a_form_without_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="images"):
        Watching()  # type: ignore[call-arg]


def test_figures_over_time_are_a_png() -> None:
    said = {"probabilities": np.full((30, 2), 0.5), "novelty": np.linspace(0, 1, 30)}
    known = reference.of(said, np.zeros(30, np.int64), 0.0, 0.99, "")
    looks = [Look(f"2026-01-0{day}", 10, -2.0 + day, 0.9, 0.9, 0.1, 0.0, None) for day in range(1, 5)]
    assert over_time(looks, known).startswith(b"\x89PNG")
