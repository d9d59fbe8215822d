"""The ledger: what it counts, what it keeps, and how it refuses what it cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from headstart.base.errors import CheckError
from headstart.handover.model import Model
from headstart.monitoring import command, keeping, reference, watch
from headstart.monitoring import ledger as ledgers
from headstart.monitoring.ledger import Ledger
from headstart.monitoring.reference import Reference
from headstart.monitoring.watch import Batch
from headstart.onnx.model_folder import REFERENCE

MODEL = "a" * 64
NAMES = ("novelty", "confidence", "class")


def outputs(n_images: int, seed: int, unlike: float = 0.0) -> dict[str, np.ndarray]:
    """Return what a model of three classes may say; `unlike` moves novelty up and confidence down."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 3 * (1 - unlike) + 0.1, (n_images, 3))
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    novelty = 1 - draw.uniform(0, 1, n_images) * (1 - unlike)
    return {"probabilities": values.astype(np.float32), "novelty": novelty.astype(np.float32)}


def known(n_images: int = 200) -> Reference:
    said = outputs(n_images, 0)
    return reference.of(said, said["probabilities"].argmax(1), 0.5, 0.99, MODEL)


def digests(n_images: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(32, "little") for number in range(first, first + n_images)]


def fed(ledger: Ledger, n_images: int, seed: int, unlike: float = 0.0, first: int = 0) -> int:
    names = [f"{number}.jpg" for number in range(n_images)]
    return ledger.add(outputs(n_images, seed, unlike), digests(n_images, first), names, "2026-01-01T00:00:00+00:00")


def test_images_like_the_held_out_ones_raise_no_alarm_and_others_do_soon() -> None:
    ledger = Ledger.begun(known(), 0.01, 0)
    assert fed(ledger, 300, 1) == 300
    assert ledger.alarm is None
    assert ledger.evidence < 0
    fed(ledger, 60, 2, unlike=0.9, first=1000)
    assert ledger.alarm is not None
    assert 300 < ledger.alarm.n_images < 340
    assert ledger.alarm.image == f"{ledger.alarm.n_images - 301}.jpg"
    assert ledger.evidence >= 0
    first = ledger.alarm
    fed(ledger, 300, 3, first=2000)
    assert ledger.alarm is first, "an alarm stays until a new ledger begins"


def test_a_folder_that_is_listed_by_class_raises_no_alarm() -> None:
    """As listed, 60 ants and then 60 bees are no draw from a heap of both: counted so, they raise the alarm."""
    draw = np.random.default_rng(3)

    def said(labels: np.ndarray) -> dict[str, np.ndarray]:
        sure = draw.uniform(0.7, 1, len(labels))
        ants = np.where(labels == 0, sure, 1 - sure)
        return {"probabilities": np.stack([ants, 1 - ants], 1), "novelty": draw.uniform(0, 1, len(labels))}

    labels = np.repeat([0, 1], [128, 125])
    held_out = reference.of(said(labels), labels, 0.5, 0.99, MODEL)
    names = [f"ants/{number}.jpg" for number in range(60)] + [f"bees/{number}.jpg" for number in range(60)]
    images = Batch(said(np.repeat([0, 1], 60)), digests(120), names)
    model = cast("Model", SimpleNamespace(abstain_below=0.5))
    for seed in range(5):
        listed, shuffled = Ledger.begun(held_out, 0.01, seed), Ledger.begun(held_out, 0.01, seed)
        listed.add(images.outputs, images.digests, images.names, "now")
        assert listed.alarm is not None, "the order of the list would not do"
        seen = command.count(shuffled, held_out, model, images, "now")
        assert shuffled.alarm is None
        assert (seen.n_counted, shuffled.n_images) == (120, 120)


def test_rows_names_and_digests_stay_together_in_the_random_order() -> None:
    ledger = Ledger.begun(known(), 0.01, 7)
    order = ledger.order(digests(50))
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
    assert order == Ledger.begun(known(), 0.01, 7).order(digests(50))
    assert order != Ledger.begun(known(), 0.01, 8).order(digests(50))
    model = cast("Model", SimpleNamespace(abstain_below=0.5))
    images = Batch(outputs(60, 2, unlike=0.9), digests(60), [f"{number}.jpg" for number in range(60)])
    command.count(ledger, known(), model, images, "now")
    assert ledger.alarm is not None
    assert ledger.alarm.image == f"{ledger.order(digests(60))[ledger.alarm.n_images - 1]}.jpg"


def test_each_new_ledger_draws_its_own_seed(tmp_path: Path) -> None:
    drawn = {keeping.opened(tmp_path / "none.json", known(), None, 0.01).ledger.seed for _ in range(3)}
    assert len(drawn) == 3
    assert keeping.opened(tmp_path / "none.json", known(), None, 0.01, seed=5).ledger.seed == 5


def test_a_folder_of_more_images_than_are_kept_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_MAX_SEEN", 10)
    ledger = Ledger.begun(known(), 0.01, 0)
    assert fed(ledger, 15, 1) == 15
    assert fed(ledger, 15, 1) == 0
    assert fed(ledger, 16, 1) == 1
    assert fed(ledger, 4, 2, first=100) == 4
    assert len(ledger.seen) == 10


def test_an_image_that_is_shown_at_every_look_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_MAX_SEEN", 10)
    ledger = Ledger.begun(known(), 0.01, 0)
    fed(ledger, 3, 1)
    for first in (100, 106, 112):
        fed(ledger, 6, 2, first=first)
        assert fed(ledger, 3, 1) == 0


def test_the_limit_shares_the_chance_of_a_false_alarm_among_the_scores() -> None:
    ledger = Ledger.begun(known(), 0.02, 0)
    assert ledger.limit == len(NAMES) / 0.02
    assert tuple(ledger.bets) == NAMES


def test_an_image_that_is_shown_again_is_not_counted_again() -> None:
    ledger = Ledger.begun(known(), 0.01, 0)
    assert fed(ledger, 50, 1) == 50
    assert fed(ledger, 50, 1) == 0
    assert fed(ledger, 60, 1) == 10
    assert ledger.n_images == 60


def test_a_ledger_that_was_written_and_read_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, parted = Ledger.begun(known(), 0.01, 0), Ledger.begun(known(), 0.01, 0)
    fed(whole, 80, 4)
    for first, last in ((0, 30), (30, 80)):
        said = {name: array[first:last] for name, array in outputs(80, 4).items()}
        parted.add(said, digests(80)[first:last], [""] * (last - first), "")
        parted.write(tmp_path / "ledger.json")
        again = ledgers.read(tmp_path / "ledger.json")
        assert again is not None
        parted = again
    for name in NAMES:
        assert parted.bets[name].log_capital == pytest.approx(whole.bets[name].log_capital)
        assert (parted.bets[name].counts == whole.bets[name].counts).all()
    assert parted.seen == whole.seen


def test_the_file_stays_small(tmp_path: Path) -> None:
    ledger = Ledger.begun(known(1000), 0.01, 0)
    fed(ledger, 2000, 5)
    ledger.write(tmp_path / "ledger.json")
    assert (tmp_path / "ledger.json").stat().st_size < 60_000


def of_model(letter: str) -> Reference:
    said = outputs(50, 1)
    return reference.of(said, np.zeros(50, np.int64), 0.5, 0.99, letter * 64)


def test_a_ledger_of_another_model_is_kept_beside_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Ledger.begun(known(), 0.01, 0).write(path)
    found = keeping.opened(path, of_model("b"), None, 0.01)
    assert (found.ledger.model_sha256, found.ledger.n_images) == ("b" * 64, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.json"], "nothing is moved before it is written"
    assert "is now ledger.aaaaaaaaaaaa.json, and a new one begins" in found.write()
    assert (tmp_path / "ledger.aaaaaaaaaaaa.json").exists()
    assert found.write() == ""
    there = ledgers.read(path)
    assert there is not None
    assert there.model_sha256 == "b" * 64


def test_a_model_that_comes_back_goes_on_with_its_ledger(tmp_path: Path) -> None:
    """A new one would give the same model a second chance of a false alarm."""
    path = tmp_path / "ledger.json"
    for n_images in (3, 4):  # the first is ended by `is_new`, the second is the one to go on with
        ledger = keeping.opened(path, known(), None, 0.01, is_new=True)
        fed(ledger.ledger, n_images, 1)
        ledger.write()
    keeping.opened(path, of_model("b"), None, 0.01).write()
    assert {each.name for each in tmp_path.glob("*.a*")} == {
        "ledger.aaaaaaaaaaaa.json",
        "ledger.aaaaaaaaaaaa.1.json",
    }
    again = keeping.opened(path, known(), None, 0.01)
    assert again.ledger.n_images == 4
    assert "is now ledger.bbbbbbbbbbbb.json, and that of this model goes on" in again.write()
    assert {each.name for each in tmp_path.glob("ledger.*.json")} == {
        "ledger.aaaaaaaaaaaa.json",
        "ledger.bbbbbbbbbbbb.json",
    }
    (tmp_path / "ledger.aaaaaaaaaaaa.json").rename(tmp_path / "ledger.aaaaaaaaaaaa.10.json")
    keeping.opened(path, of_model("b"), None, 0.01).write()
    assert (tmp_path / "ledger.aaaaaaaaaaaa.11.json").exists(), "the last one has the highest number"


def test_a_ledger_that_cannot_be_written_is_told_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.json"
    Ledger.begun(known(), 0.01, 0).write(path)
    before = path.read_bytes()
    monkeypatch.setattr("headstart.base.files.os.fsync", full)
    for found in (keeping.opened(path, known(), None, 0.01), keeping.opened(path, of_model("b"), None, 0.01)):
        with pytest.raises(CheckError, match=r"^ledger\.json cannot be written: no room is left in"):
            found.write()
        assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.json"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_ledger_whose_name_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"cannot be written \(File name too long\)\. A place for the ledger"):
        Ledger.begun(known(), 0.01, 0).write(tmp_path / ("x" * 300))


@pytest.mark.parametrize("path", ["", ".", "/", "..", "folder"])
def test_a_ledger_that_would_be_a_folder_is_told(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(CheckError, match=r"which is a folder. A file was expected"), keeping.held(Path(path)):
        pass


def test_a_model_in_the_root_needs_a_named_ledger() -> None:
    with pytest.raises(CheckError, match=r"/model.onnx lies in the root .* Name one with --ledger"):
        command.ledger_of(Path("/model.onnx"))


def test_a_bound_that_is_chosen_later_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Ledger.begun(known(), 0.01, 0).write(path)
    with pytest.raises(CheckError, match=r"begun with a chance of false alarms of 0.01, not 0.05"):
        keeping.opened(path, known(), 0.05, 0.01)
    assert keeping.opened(path, known(), 0.01, 0.5).ledger.false_alarm == 0.01


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "null", "[" * 100_000])
def test_what_is_no_ledger_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(CheckError, match=r"ledger.json is not a ledger, or is damaged"):
        ledgers.read(path)


def test_a_damaged_number_in_a_ledger_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Ledger.begun(known(), 0.01, 0).write(path)
    whole = json.loads(path.read_text())
    for name, value in (("weights", [1.0]), ("log_capital", "x"), ("n_levels", -1), ("images", [[1]]), ("bins", [])):
        broken = json.loads(json.dumps(whole))
        broken["bets"]["novelty"][name] = value
        path.write_text(json.dumps(broken))
        with pytest.raises(CheckError, match="is not a ledger, or is damaged"):
            ledgers.read(path)


def test_two_processes_do_not_share_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    with (
        keeping.held(path),
        pytest.raises(CheckError, match=r"ledger.json is in use by another process"),
        keeping.held(path),
    ):
        pass


def test_the_reference_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = known(700)
    reference.write(tmp_path, found)
    again = reference.read(tmp_path / "model.onnx", MODEL)
    assert again.rows.shape == (500, 4)
    assert again.rows == pytest.approx(found.rows, abs=1e-3)
    assert again.accuracy == 1.0
    for name in NAMES:
        assert (again.counts[name] == found.counts[name]).all()
        assert again.counts[name].sum() == 700


def test_a_reference_of_another_model_a_damaged_one_and_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"reference.json does not exist, and what is normal"):
        reference.read(tmp_path / "model.onnx", MODEL)
    reference.write(tmp_path, known())
    with pytest.raises(CheckError, match=r"is of another model than .*model.onnx \(aaaaaaaaaaaa, not bbbbbbbbbbbb\)"):
        reference.read(tmp_path / "model.onnx", "b" * 64)
    whole = json.loads((tmp_path / REFERENCE).read_text())
    for name, value in (("n_images", 3), ("rows", 1), ("counts", {}), ("format", 2), ("accuracy", None)):
        (tmp_path / REFERENCE).write_text(json.dumps({**whole, name: value}))
        with pytest.raises(CheckError, match=r"reference.json is damaged"):
            reference.read(tmp_path / "model.onnx", MODEL)


def test_a_look_says_everything_as_plain_json() -> None:
    ledger, held_out = Ledger.begun(known(), 0.01, 0), known()
    images = Batch(outputs(40, 6, unlike=0.8), digests(40), [f"{number}.jpg" for number in range(40)])
    n_counted = ledger.add(images.outputs, images.digests, images.names, "now")
    seen = watch.look(ledger, held_out, images, 0.5, 0.99, "now", n_counted)
    told = json.loads(json.dumps(watch.told(seen, ledger, held_out, ["x", "y", "z"]), allow_nan=False))
    assert told["alarm"]["score"] in NAMES
    assert told["p_value"] < 0.05
    assert told["accuracy"]["low"] <= told["accuracy"]["accuracy"] < told["accuracy"]["held_out"] == 1
    assert sum(each["share"] for each in told["classes"].values()) == pytest.approx(1, abs=1e-3)
    assert told["confidence"]["now"] < told["confidence"]["held_out"]
    assert math.isclose(told["limit"], 300)
    assert len(ledger.looks) == 1
