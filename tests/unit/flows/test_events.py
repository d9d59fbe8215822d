from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from flows import events
from headstart.base import progress


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the run, which is no run of Prefect's here."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(events, "get_run_logger", lambda: logging.getLogger("run"))
    return caplog


def tell(told: events.Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(told.path))


def test_lines_go_to_the_log_with_their_levels_and_what_is_broken_is_dropped(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with events.listening("embed", []) as told:
        tell(told, monkeypatch)
        progress.begin("embed")
        progress.say("one")
        with told.path.open("a") as file:
            file.write("{half a li\n[]\n" + '{"kind": "log"}\n{"kind": "unknown"}\n')
        progress.warn("two")
        progress.fail("three", may_heal=True)
    assert told.started
    assert (told.errors, told.may_heal, told.interrupted) == (["three"], True, False)
    heard = [(record.levelname, record.getMessage()) for record in log.records if "cannot be parsed" not in record.msg]
    assert heard == [("INFO", "one"), ("WARNING", "two")]
    assert len(log.records) == 5  # three lines cannot be parsed


def test_progress_is_sent_once_a_second_and_its_end_always(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[float, str]] = []
    monkeypatch.setattr(
        events, "create_progress_artifact", lambda done, key, description: sent.append((done, key)) or uuid4()
    )
    monkeypatch.setattr(
        events, "update_progress_artifact", lambda bar, done, description: sent.append((done, description))
    )
    with events.posting() as posters, events.listening("train_head", posters) as told:
        tell(told, monkeypatch)
        for done in range(1, 101):
            progress.emit("progress", what="fitting", done=done, total=100, unit="fit", rate=7.0)
    assert sent[0][1] == "train-head-progress"
    assert sent[-1] == (100.0, "fitting: 100 of 100 fits, 7.0 per second")
    assert len(sent) == 2


def test_a_rate_that_is_not_known_is_not_shown(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(events, "create_progress_artifact", lambda done, key, description: sent.append(description))
    with events.posting() as posters, events.listening("embed", posters) as told:
        tell(told, monkeypatch)
        progress.emit("progress", what="embedding", done=8, total=8, unit="image")
    assert sent == ["embedding: 8 of 8 images"]


def test_a_server_that_hangs_stops_neither_the_stage_nor_the_log_nor_for_long_the_run(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(events, "create_table_artifact", lambda *_, **__: hangs.wait(60))
    monkeypatch.setattr(events, "_LAST_POST_S", 0.5)
    began = time.monotonic()
    with events.posting() as posters, events.listening("embed", posters) as told:
        tell(told, monkeypatch)
        progress.show_table("rows", [{"a": 1}], "a table")
        progress.say("said after it")
    assert "said after it" in log.text
    assert time.monotonic() - began < 10
    hangs.set()


def test_a_server_that_is_gone_is_a_warning(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(events, "create_markdown_artifact", gone)
    with events.posting() as posters, events.listening("embed", posters) as told:
        tell(told, monkeypatch)
        progress.show_image("sheet", lambda: b"\x89PNG", "images")
    assert "Prefect's page does not show one of the stage's artifacts: no server" in log.text


def test_numbers_of_a_table_fit_the_columns_of_the_page(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(events, "create_table_artifact", lambda rows, **_: shown.extend(rows))
    with events.posting() as posters, events.listening("train_head", posters) as told:
        tell(told, monkeypatch)
        progress.show_table("rows", [{"name": "a", "number": 3, "score": 0.9510204081632653}], "a table")
    assert shown == [{"name": "a", "number": 3, "score": 0.95102}]


def test_pictures_carry_their_kind() -> None:
    assert events.data_uri("iVBORw0KGgo=").startswith("data:image/png;base64,iVBOR")
    assert events.data_uri("/9j/4AAQSkZJ").startswith("data:image/jpeg;base64,/9j/")


def test_a_run_that_is_cancelled_does_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hangs = threading.Event()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), events.posting() as posters:
        posters.append(threading.Thread(target=hangs.wait, args=(60,), daemon=True))
        posters[0].start()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 5
    hangs.set()
