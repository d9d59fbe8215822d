"""`headstart verify` never says yes to a folder that cannot show it, and never ends in a traceback."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.commands import main as cli
from tests.support.images import ROOT

MODEL = ROOT / "tests" / "models" / "format-1"
FILES = sorted(path.relative_to(MODEL).as_posix() for path in MODEL.rglob("*") if path.is_file())
ANSWERS = "conformance/expected.json"
DEEP = "[" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def with_sums(folder: Path) -> Path:
    """Write SHA256SUMS anew, as somebody would who wants to hide a change."""
    names = [name for name in FILES if name != "SHA256SUMS" and (folder / name).is_file()]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return why the folder is refused."""
    assert cli.main(["verify", str(folder)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("kept", ["", "model.onnx", "model.json", ANSWERS])
def test_checksums_without_a_file_that_a_model_needs_are_refused(
    kept: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    left = [line for line in lines if kept and not line.endswith(f"  {kept}\n")]
    (folder / "SHA256SUMS").write_text("".join(left))
    assert f"SHA256SUMS does not list {kept or ANSWERS}" in refused(folder, capsys)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "conformance/../../x", "..\\x", "a\0b"])
def test_files_outside_the_folder_are_never_opened(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    said = refused(folder, capsys)
    assert "A file inside the folder was expected" in said or "cannot be read" in said


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return what changes expected.json."""

    def apply(folder: Path) -> None:
        answers = json.loads((folder / ANSWERS).read_text())
        change(answers)
        (folder / ANSWERS).write_text(json.dumps(answers))

    return apply


def written(answers: str) -> Callable[[Path], None]:
    """Return what puts a text in place of expected.json."""

    def apply(folder: Path) -> None:
        (folder / ANSWERS).write_text(answers)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        changed(lambda answers: answers["images"].clear()),
        *(
            changed(lambda answers, each=each: answers.update(tolerance=each))
            for each in (1e9, 0, -1, None, float("nan"))
        ),
        changed(lambda answers: answers.pop("tolerance")),
        changed(lambda answers: answers["images"][0].update(file="../model.onnx")),
        changed(lambda answers: answers["images"][0].update(file=7)),
        changed(lambda answers: answers["images"][0].update(label="a class of another model")),
        changed(lambda answers: answers["images"][0]["probabilities"].append(0.0)),
        changed(lambda answers: answers["images"][0].update(probabilities=[float("nan")] * 2)),
        changed(lambda answers: answers["images"][0].update(probabilities="half")),
        written("[]"),
        written(DEEP),
    ],
)
def test_answers_that_could_not_tell_a_wrong_model_are_refused(
    change: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder)
    said = refused(with_sums(folder), capsys)
    assert "cannot show that a model is right" in said or "cannot be read" in said


def test_a_model_of_other_classes_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(folder / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "classes":
            entry.value = json.dumps([*json.loads(entry.value), "one more"])
    onnx.save(model, folder / "model.onnx")
    assert "for each of the" in refused(with_sums(folder), capsys)


def test_classes_in_another_order_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((folder / "model.json").read_text())
    record["classes"] = record["classes"][::-1]
    (folder / "model.json").write_text(json.dumps(record))
    assert "model.json has other classes than model.onnx" in refused(with_sums(folder), capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("classes", value) for value in ("7", "[]", '["a", "a"]', "[1, 2]", DEEP)),
        *(("label_sets", value) for value in ("[1]", '{"coverage": 0.9}')),
        ("abstain_below", "often"),
        ("bits", "inf"),
    ],
)
def test_metadata_that_is_not_ours_is_no_traceback(
    key: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(folder / "model.onnx")
    kept = [(each.key, each.value) for each in model.metadata_props if each.key != key]
    onnx.helper.set_model_props(model, dict([*kept, (key, value)]))
    onnx.save(model, folder / "model.onnx")
    assert "A model exported by headstart was expected" in refused(with_sums(folder), capsys)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_file_is_refused_and_no_content_of_any_is_a_traceback(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([each for each in FILES if each != "model.onnx"]))
    content = (MODEL / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(
        st.sampled_from([content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]])
        | st.sampled_from([b"", b"null", b"[]", b"{}", b'"x"', b"1e999", b"\xff\xfe", DEEP.encode()])
    )
    is_hidden = data.draw(st.booleans())
    with TemporaryDirectory() as place:
        folder = Path(shutil.copytree(MODEL, Path(place) / "model"))
        (folder / name).write_bytes(other)
        status = cli.main(["verify", str(with_sums(folder) if is_hidden else folder)])
    if name == ANSWERS:
        assert status == 1 or json.loads(other)["images"]
    assert status in ((0, 1) if is_hidden else (1,))
