"""`headstart monitor` on a model that answers without a network: its statuses, and what it leaves where it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from headstart.commands import main as cli
from headstart.handover.asked import Told
from headstart.monitoring import command, reference

Run = Callable[..., int]


def outputs(novelty: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the model says: the less novel an image, the surer it is."""
    share = 0.99 - 0.39 * novelty
    return {"probabilities": np.stack([share, 1 - share], 1), "novelty": novelty}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the command on images: a name says how novel each is, and `bad` ones cannot be read."""
    known = reference.of(outputs(np.linspace(0, 0.9, 40)), np.zeros(40, np.int64), 0.5, 0.99, "a" * 64)
    model = SimpleNamespace(file=tmp_path / "model" / "model.onnx", classes=["ants", "bees"], abstain_below=0.5)

    def asking(paths: Sequence[str]) -> Iterator[Told | str]:
        for path in paths:
            if path.startswith("bad"):
                yield f"{path}: not an image."
            else:
                yield Told(path, path.encode(), outputs(np.array([float(path.split("-")[0])])))

    monkeypatch.setattr(command, "Model", lambda path: model)
    monkeypatch.setattr(command, "reference_of", lambda model: known)
    monkeypatch.setattr(command.asked, "asking", lambda *_: contextlib.nullcontext(asking))

    def monitored(*words: str) -> int:
        return cli.main(["monitor", "model", *words, "--ledger", str(tmp_path / "l.json")])

    return monitored


USUAL = [f"{value:.3f}-{number}.jpg" for number, value in enumerate(np.random.default_rng(0).uniform(0, 0.9, 12))]
STRANGE = [f"1.0-{number}.jpg" for number in range(60)]


def test_an_image_that_cannot_be_read_gives_status_2_and_drift_3(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*USUAL) == 0
    assert run(*USUAL, "bad.jpg") == 2
    assert "bad.jpg: not an image. An image was expected." in capsys.readouterr().err
    assert run(*STRANGE, "bad.jpg") == 3


def test_a_new_ledger_moves_nothing_where_no_image_can_be_read(run: Run, tmp_path: Path) -> None:
    assert run(*USUAL) == 0
    before = (tmp_path / "l.json").read_bytes()
    assert run("bad.jpg", "--new") == 1
    assert (tmp_path / "l.json").read_bytes() == before
    assert not list(tmp_path.glob("l.*.json"))
    assert run(*USUAL, "--new") == 0
    assert len(list(tmp_path.glob("l.*.json"))) == 1


def test_a_ledger_that_cannot_be_written_is_told_behind_the_table(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.base.files.os.fsync", full)
    assert run(*USUAL) == 1
    said = capsys.readouterr()
    assert "12 images, 12 of them new to the ledger" in said.out
    assert "l.json cannot be written: no room is left in" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_folder_as_ledger_is_told(run: Run, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["monitor", "model", *USUAL, "--ledger", path]) == 1
    assert "which is a folder. A file was expected. Name one with --ledger." in capsys.readouterr().err
