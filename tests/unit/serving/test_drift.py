"""The ledgers of a server: a request is answered whatever happens to them, and each version keeps to its own."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from headstart.base.files import sha256_of
from headstart.monitoring import ledger as ledgers
from headstart.monitoring import reference
from headstart.monitoring.watch import Batch
from headstart.serving import drift
from headstart.serving.drift import Drift
from headstart.serving.models import Models, Served

PIXELS = np.zeros((1, 2, 2, 3), np.uint8)


def outputs(n_images: int = 1) -> dict[str, np.ndarray]:
    share = np.linspace(0.6, 0.9, n_images, dtype=np.float32)
    return {"probabilities": np.stack([share, 1 - share], 1), "novelty": share}


def exported(folder: Path, content: bytes, has_reference: bool = True) -> Served:
    """Return what is served of a model folder that then has this content in its place of a network."""
    folder.mkdir(exist_ok=True)
    file = folder / "model.onnx"
    file.write_bytes(content)
    sha256 = sha256_of(file)
    (folder / "reference.json").unlink(missing_ok=True)
    if has_reference:
        known = reference.of(outputs(30), np.zeros(30, np.int64), 0.5, 0.99, sha256)
        reference.write(folder, known)
    alone = SimpleNamespace(
        file=file, classes=["ants", "bees"], output_names=["probabilities", "novelty"], abstain_below=0.5
    )
    return cast("Served", SimpleNamespace(name="m", version=sha256[:12], model_sha256=sha256, alone=alone))


class Watching:
    """A server's ledgers, and the switch from one version to the next."""

    def __init__(self, folder: Path) -> None:
        self.ledgers, self.model = folder / "ledgers", folder / "model"
        self.ledgers.mkdir()
        self.first = exported(self.model, b"first")
        self.models = SimpleNamespace(current={"m": self.first})
        self.drift = Drift(self.ledgers, cast("Models", self.models))
        self.n_asked = 0

    def switch(self, content: bytes, has_reference: bool = True) -> Served:
        served = exported(self.model, content, has_reference)
        self.models.current = {"m": served}
        return served

    def ask(self, served: Served) -> None:
        """Let an image that was not seen before be answered."""
        self.n_asked += 1
        self.drift.count(served, outputs(), PIXELS + self.n_asked)

    def counted(self) -> int | None:
        state = self.drift.state()
        return state["m"]["n_images"] if state else None

    def there(self) -> tuple[str, int]:
        """Return version and number of images of the ledger at the model's path."""
        found = ledgers.read(self.ledgers / "m.json")
        assert found is not None
        return found.model_sha256[:12], found.n_images


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    return Watching(tmp_path)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_at_the_switch_fails_no_request_and_the_next_version_is_watched(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watching.ask(watching.first)
    second = watching.switch(b"second")
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr("headstart.base.files.os.fsync", full)
        for _ in range(3):
            watching.ask(second)
    assert sum("not all that version" in each.message for each in caplog.records) == 1
    assert "m.json cannot be written: no room is left in" in caplog.text
    assert watching.counted() is None
    third = watching.switch(b"third")
    watching.ask(third)
    assert watching.counted() == 1


def test_a_version_that_cannot_be_watched_does_not_end_the_watching(watching: Watching) -> None:
    watching.ask(watching.first)
    second = watching.switch(b"second", has_reference=False)
    watching.ask(second)
    watching.ask(second)
    assert watching.counted() is None
    again = watching.switch(b"first")
    watching.ask(again)
    assert watching.counted() == 2, "the first version goes on with its ledger"


def test_a_request_in_flight_on_the_old_version_does_not_open_its_ledger_again(watching: Watching) -> None:
    second = watching.switch(b"second")
    watching.ask(second)
    watching.ask(watching.first)
    watching.ask(second)
    assert watching.counted() == 2
    assert watching.there()[0] == second.version
    assert len(list(watching.ledgers.glob("m.*.json"))) == 1


def test_the_reference_is_that_of_the_model_as_it_was_loaded(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    second = watching.switch(b"second")
    exported(watching.model, b"third")  # which the server has not loaded yet
    watching.ask(second)
    assert "is of another model than" in caplog.text
    assert watching.counted() is None


def test_a_look_of_the_old_version_does_not_write_over_the_new_ledger(watching: Watching) -> None:
    watching.ask(watching.first)
    old = watching.drift._watched["m"]
    assert old is not None
    second = watching.switch(b"second")
    watching.ask(second)
    drift._look(old, Batch(outputs(3), [b"1", b"2", b"3"], [""] * 3), 3)
    assert watching.there()[0] == second.version
    watching.ask(second)
    watching.drift.close()
    assert watching.there() == (second.version, 2)


def test_what_goes_wrong_while_counting_fails_no_request(watching: Watching, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        watching.drift.count(watching.first, {"probabilities": np.zeros((1, 2))}, PIXELS)
    assert sum("is counted" in each.message for each in caplog.records) == 1
    watching.ask(watching.first)
    assert watching.counted() == 1
