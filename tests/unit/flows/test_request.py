from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.request import Request, run_name
from headstart import params_file
from headstart.base.errors import ParamError
from tests.support.images import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


def test_overrides_of_every_kind_are_written_as_they_were_meant(file: Path) -> None:
    overrides = {
        "split.seed": 7,
        "finetune.enabled": True,
        "split.val_fraction": 0.25,
        "split.method": "stratified",
        "backbone.mean": [0.1, 0.2, 0.3],
        "embed.batch_size": None,
        "train_head.folds": "3",  # as a shell gives it
    }
    written = Request(overrides=overrides).write(file)
    assert params_file.load(file) == written
    assert (written.split.seed, written.finetune.enabled, written.split.method) == (7, True, "stratified")
    assert written.backbone.mean == (0.1, 0.2, 0.3)
    assert written.train_head.folds == 3


def test_nothing_to_override_changes_no_byte(file: Path) -> None:
    before = file.read_bytes()
    Request().write(file)
    assert file.read_bytes() == before


def test_a_wrong_name_is_refused_and_nothing_is_written(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ParamError, match=r"Did you mean 'split\.seed'\?"):
        Request(overrides={"split.method": "stratified", "split.sede": 1}).write(file)
    assert file.read_bytes() == before


def test_what_the_form_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError):
        Request.model_validate({"target": ["embed"]})


def test_a_run_is_named_by_what_it_is(file: Path) -> None:
    one = run_name(params_file.load(file), "")
    other = run_name(Request(overrides={"split.seed": 9}).write(file), "another split")
    assert one.split()[:2] == ["digits", "tf_efficientnet_lite0"]
    assert other.startswith("digits tf_efficientnet_lite0 ")
    assert other.endswith(" another split")
    assert one.split()[2] != other.split()[2]


def test_the_form_explains_every_field() -> None:
    fields = Request.model_json_schema()["properties"]
    assert list(fields) == ["targets", "force", "overrides", "only_new_data", "pull", "push", "notify", "note"]
    assert all(field["description"].endswith(".") or "split.seed" in field["description"] for field in fields.values())
