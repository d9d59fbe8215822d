"""`headstart rank` shows the table and changes nothing in the project."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from headstart import params_file
from headstart.backbones import bundled
from headstart.base.errors import ParamError
from headstart.commands import main
from headstart.commands import rank as command
from tests.support import graphs
from tests.support.images import ROOT
from tests.support.projects import write_photographs


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    write_photographs(folder / "photos", 60)
    for name in ("params.yaml", "dvc.yaml", "reviewed.csv"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "artifacts" / "ranking").mkdir(parents=True)
    (folder / "artifacts" / "ranking" / "ranking.json").write_text("of an earlier run")
    params_file.assign(folder / "params.yaml", [f"cache.dir={tmp_path / 'cache'}"])
    monkeypatch.chdir(folder)
    return folder


def contents(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def given(path: Path) -> str:
    """Return a candidate as it is typed on the command line."""
    values: dict[str, Any] = {"name": "onnx", "licence": "MIT", **graphs.PREPARED}
    return json.dumps({**values, **graphs.saved(graphs.nchw(), path)})


def test_it_prints_the_table_and_draws_the_picture_and_no_file_of_the_project_changes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    picture = tmp_path / "ranking.png"
    arguments = ["rank", given(tmp_path / "net.onnx"), "--data", "photos", "--picture", str(picture)]
    assert main.main(arguments) == 0
    said = capsys.readouterr().out
    assert "> onnx (net.onnx)" in said
    assert "nothing in the project has changed" in said
    assert contents(root) == before
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_parameters_of_the_comparison_are_its_own(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    limit = ["--set", "rank.max_mb=0.001"]
    assert main.main(["rank", given(tmp_path / "net.onnx"), "--data", "photos", *limit]) == 0
    said = capsys.readouterr().out
    assert "- onnx (net.onnx)" in said
    assert "there is no winner, for none may win (onnx (net.onnx): it has 0.0 MB)" in said
    assert contents(root) == before


def test_what_was_set_aside_can_be_looked_up_though_the_comparison_failed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        (root / "photos" / "ants" / f"broken-{number}.jpg").write_bytes(b"no image")
    before = contents(root)
    assert main.main(["rank", given(tmp_path / "net.onnx"), "--data", "photos"]) == 1
    (listed,) = (word for word in capsys.readouterr().err.split() if "quarantine.csv" in word)
    assert Path(listed.strip(".,")).read_text().count("broken-") == 30
    assert contents(root) == before


def test_what_was_set_aside_can_be_looked_up_after_the_comparison(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "photos" / "ants" / "broken.jpg").write_bytes(b"no image")
    assert main.main(["rank", given(tmp_path / "net.onnx"), "--data", "photos"]) == 0
    said = capsys.readouterr()
    (listed,) = (word for word in (said.out + said.err).split() if "quarantine.csv" in word)
    assert "broken.jpg" in Path(listed).read_text()
    assert [each.name for each in Path(listed).parent.parent.iterdir()] == ["validation"]  # nothing else is left
    shutil.rmtree(Path(listed).parent.parent)


@pytest.mark.parametrize("more", [[], ["--picture", "x.png"]])
def test_nothing_to_compare_is_told(root: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["rank", "--set", "rank.backbones=[]", *more]) == 1
    assert "rank.backbones names none, so there is nothing to compare" in capsys.readouterr().err


def test_without_names_the_bundled_networks_that_are_installed_are_compared(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verified(entry: bundled.Bundled, sha256: str | None) -> Path:
        if "lite2" in entry.package:
            raise ParamError("missing")
        return Path()

    monkeypatch.setattr(bundled, "verified", verified)
    values = command._values(root, ["data.root=photos", "rank.max_ms=7"], [])
    assert [each.name for each in values.rank.backbones] == [
        "tf_efficientnet_lite0",
        "tf_efficientnet_lite1",
        "mobilenet_v2",
    ]
    assert values.rank.max_ms == 7
    assert "not installed: tf_efficientnet_lite2 (`pip install 'headstart[backbones]'`)" in capsys.readouterr().out


def test_names_in_params_come_first(root: Path) -> None:
    params_file.assign(root / "params.yaml", ["rank.backbones=[resnet18]", "backbone.name=ranked"])
    assert [each.name for each in command._values(root, [], []).rank.backbones] == ["resnet18"]
    assert [each.name for each in command._values(root, [], ["resnet34"]).rank.backbones] == ["resnet34"]


def test_a_picture_in_a_folder_that_does_not_exist_is_refused_before_anything_is_embedded(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["rank", "--picture", "nowhere/ranking.png"]) == 1
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "where"), [(["resnt50"], "the command"), ([], "rank.backbones in params.yaml")])
def test_a_name_that_is_not_known_is_told_as_typed_before_any_image_is_looked_at(
    root: Path, typed: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not typed:
        params_file.assign(root / "params.yaml", ["rank.backbones=[resnt50]"])
    before = contents(root)
    assert main.main(["rank", *typed, "--data", "photos"]) == 1
    said = capsys.readouterr()
    assert said.err == f"rank: 'resnt50' is not a known backbone. Did you mean 'resnet50'? Mend it in {where}.\n"
    assert "validate" not in said.out
    assert contents(root) == before
