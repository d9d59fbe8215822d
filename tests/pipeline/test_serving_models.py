"""Several models in one `headstart serve`, and later versions of them taken while it answers."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path

import onnx
import pytest

from headstart.base.errors import CheckError
from headstart.base.files import replacing_folder, sha256_of
from headstart.commands.main import main
from headstart.serving.models import named
from tests.support.orchestration import wait_for
from tests.support.serving import PICTURE, SMALL, Serving, served


def written(folder: Path, classes: list[str]) -> None:
    """Write the small model with other names of its classes, as `publish` does: in one step, with its checksums."""
    with replacing_folder(folder) as beside:
        shutil.copytree(SMALL, beside, dirs_exist_ok=True)
        model = onnx.load(beside / "model.onnx")
        facts = {each.key: each.value for each in model.metadata_props}
        old = json.loads(facts["classes"])
        onnx.helper.set_model_props(model, {**facts, "classes": json.dumps(classes)})
        onnx.save(model, beside / "model.onnx")
        expected = json.loads((beside / "conformance" / "expected.json").read_text())
        for each in expected["images"]:
            each["label"] = classes[old.index(each["label"])]
        (beside / "conformance" / "expected.json").write_text(json.dumps(expected))
        record = json.loads((beside / "model.json").read_text())
        record |= {"classes": classes, "model_sha256": sha256_of(beside / "model.onnx")}
        (beside / "model.json").write_text(json.dumps(record))
        names = [line.split("  ")[1] for line in (beside / "SHA256SUMS").read_text().splitlines()]
        (beside / "SHA256SUMS").write_text("".join(f"{sha256_of(beside / name)}  {name}\n" for name in names))


class Asking:
    """Asks without a pause in threads, and keeps every status and label."""

    def __init__(self, serving: Serving) -> None:
        self._serving, self._ends = serving, threading.Event()
        self.statuses: list[int] = []
        self.labels: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ends.is_set():
            status, said = self._serving.predict(PICTURE.read_bytes())
            self.statuses.append(status)
            self.labels.append(said.get("label"))

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def test_a_model_is_replaced_while_it_answers_and_a_broken_one_is_not_taken(tmp_path: Path) -> None:
    birds = tmp_path / "birds"
    written(birds, ["a1", "a2"])
    with served(birds, tmp_path / "log") as serving:
        version = serving.get("/v2/models/birds")["versions"]
        asking = Asking(serving)
        try:
            wait_for(lambda: len(asking.statuses) > 20, 20)
            written(birds, ["b1", "b2"])
            wait_for(lambda: serving.get("/model")["classes"] == ["b1", "b2"], 30)
            assert serving.get("/v2/models/birds")["versions"] != version
            with (birds / "model.onnx").open("r+b") as file:
                file.seek(2000)
                file.write(b"\0\1\2\3")
            wait_for(lambda: serving.metric("headstart_model_loads_total") == 2, 30)
            assert serving.get("/model")["classes"] == ["b1", "b2"]
            shutil.rmtree(birds)
            written(birds, ["c1", "c2"])
            wait_for(lambda: serving.get("/model")["classes"] == ["c1", "c2"], 30)
            taken = serving.metric("headstart_model_loads_total")
            serving.process.send_signal(signal.SIGHUP)  # also what has not changed
            wait_for(lambda: serving.metric("headstart_model_loads_total") == taken + 1, 30)
        finally:
            asking.end()
        assert set(asking.statuses) == {200}
        assert {label[0] for label in asking.labels} == {"a", "b", "c"}
        log = serving.log.read_text()
        assert "is not taken" in log and "the exported file was expected" in log.lower()
        assert "Traceback" not in log


def test_several_models_are_told_by_name_and_the_first_answers_without_one(tmp_path: Path) -> None:
    written(tmp_path / "birds", ["b1", "b2"])
    written(tmp_path / "cats", ["c1", "c2"])
    with served([tmp_path / "birds", f"felines={tmp_path / 'cats'}"], tmp_path / "log") as serving:
        for path, classes in {"/model": "b", "/model/birds": "b", "/model/felines": "c"}.items():
            assert serving.get(path)["classes"] == [f"{classes}1", f"{classes}2"]
        data = PICTURE.read_bytes()
        labels = [
            serving.predict(data, path)[1]["label"] for path in ("/predict", "/predict/birds", "/predict/felines")
        ]
        assert [label[0] for label in labels] == ["b", "b", "c"]
        status, said = serving.predict(data, "/predict/dogs")
        assert status == 404
        assert said["detail"] == "'dogs' is not a model of this server. One of birds, felines was expected."


def test_names_come_from_folders_or_are_given(tmp_path: Path) -> None:
    for folder in ("a/model", "b/model", "c=d"):
        (tmp_path / folder).mkdir(parents=True)
    a, b, odd = (str(tmp_path / folder) for folder in ("a/model", "b/model", "c=d"))
    assert named([a]) == [("model", Path(a))]
    assert named([f"{a}/model.onnx"]) == [("model", Path(a) / "model.onnx")]
    assert named([f"x={a}", b, odd]) == [("x", Path(a)), ("model", Path(b)), ("c=d", Path(odd))]
    with pytest.raises(CheckError, match=r"would both be named 'model'\. Write NAME=FOLDER"):
        named([a, b])


def test_a_model_that_is_not_sound_is_not_served_from_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SMALL, tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{}")
    assert main(["serve", str(tmp_path / "model"), "--port", "0"]) == 1
    assert "The exported file was expected. Copy the whole folder again." in capsys.readouterr().err
