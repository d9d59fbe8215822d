"""Models that were handed over stay readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import onnx
import pytest

from headstart.commands import main as cli
from headstart.handover.folder import model_schema
from headstart.handover.model import FORMAT, Model
from tests.support.images import ROOT

MODELS = ROOT / "tests" / "models"
SCHEMA = json.loads((ROOT / "headstart" / "handover" / "model.schema.json").read_text())


def test_there_is_a_model_of_every_format() -> None:
    assert {path.name for path in MODELS.iterdir() if path.is_dir()} == {f"format-{n + 1}" for n in range(FORMAT)}


@pytest.mark.parametrize(
    "folder", sorted(path for path in MODELS.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_a_model_of_each_format_is_verified_and_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(folder)]) == 0
    assert cli.main(["info", str(folder)]) == 0
    vectors = json.loads((folder / "conformance" / "expected.json").read_text())["images"]
    capsys.readouterr()
    files = [str(folder / "conformance" / vector["file"]) for vector in vectors]
    assert cli.main(["predict", str(folder), *files, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["label"] for answer in answers] == [vector["label"] for vector in vectors]


def test_the_schema_is_that_of_the_record() -> None:
    """Where it fails: `python -m headstart.handover.folder > headstart/handover/model.schema.json`."""
    assert model_schema() == SCHEMA


def test_the_newest_formats_model_json_is_what_the_schema_says() -> None:
    told = json.loads((MODELS / f"format-{FORMAT}" / "model.json").read_text())
    jsonschema.validate(told, SCHEMA)
    assert set(told) <= set(SCHEMA["properties"])  # nothing is there that is not described
    optional = set(SCHEMA["properties"]) - set(told)
    assert optional == {"bits", "label_sets", "licence_source"}  # what is not said has its default
    assert not optional & set(SCHEMA["required"])
    for name in ("classes", "abstain_below", "format"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in told.items() if key != name}, SCHEMA)


def test_a_model_of_a_newer_format_is_refused_with_the_version_that_wrote_it(tmp_path: Path) -> None:
    shutil.copytree(MODELS / f"format-{FORMAT}", tmp_path / "model")
    file = tmp_path / "model" / "model.onnx"
    newer = onnx.load(file)
    facts = {each.key: each.value for each in newer.metadata_props} | {"format": str(FORMAT + 1)}
    onnx.helper.set_model_props(newer, facts)
    onnx.save(newer, file)
    with pytest.raises(Exception, match=rf"has format {FORMAT + 1}\. Format {FORMAT} or below was expected.*0\.1\.0"):
        Model(file)
