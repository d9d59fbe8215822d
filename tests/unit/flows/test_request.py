from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from flows import request
from flows.request import Override, Request
from headstart import params_file
from headstart.base.errors import ParamError
from tests.support.images import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


def made(**fields: Any) -> Request:
    """Return a request as the form sends it."""
    return Request.model_validate(fields)


def others(**values: str) -> list[dict[str, str]]:
    return [{"name": name.replace("__", "."), "value": value} for name, value in values.items()]


def test_fields_and_other_parameters_mean_what_they_say(file: Path) -> None:
    asked = made(
        images="photos/",
        backbone="resnet18",
        finetune="on",
        views=0,
        overrides=others(
            split__seed="7", split__method="stratified", backbone__mean="[0.1, 0.2, 0.3]", embed__batch_size="null"
        ),
    )
    values = params_file.assign(file, asked.assignments())
    assert (values.data.root, values.backbone.name, values.finetune.enabled) == ("photos", "resnet18", True)
    assert (values.embed.views, values.split.seed, values.split.method) == (0, 7, "stratified")
    assert values.backbone.mean == (0.1, 0.2, 0.3)
    assert values.embed.batch_size is None
    assert made(finetune="off").assignments() == ["finetune.enabled=false"]


@pytest.mark.parametrize("cleared", [{}, {"note": None, "images": None, "backbone": None, "views": None}])
def test_a_field_that_is_empty_sets_nothing(cleared: dict[str, None]) -> None:
    assert made(**cleared).assignments() == []
    assert made(**cleared) == Request()


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ParamError, match=r"embed\.views is given twice"):
        made(views=3, overrides=others(embed__views="2")).assignments()


def test_a_wrong_name_is_refused_and_nothing_is_written(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(ParamError, match=r"Did you mean 'split\.seed'\?"):
        params_file.assign(file, made(overrides=others(split__method="stratified", split__sede="1")).assignments())
    assert file.read_bytes() == before


@pytest.mark.parametrize("wrong", [{"target": ["embed"]}, {"targets": ["embedd"]}, {"views": -1}, {"finetune": "yes"}])
def test_what_the_form_does_not_offer_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(**wrong)


def test_a_stage_that_is_none_is_told_with_the_nearest_one() -> None:
    request.check_targets(["embed", "export"])
    with pytest.raises(ParamError, match=r"'train-head' is not a stage\. Did you mean 'train_head'\?"):
        request.check_targets(["train-head"])


def test_the_form_offers_the_stages_and_the_names_of_all_parameters() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(get_args(request.Stage)) == list(stages)
    schema = Request.model_json_schema()
    assert schema["properties"]["targets"]["items"]["enum"] == list(stages)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    known = {f"{section}.{name}" for section, inner in values.items() for name in inner}
    assert set(Override.model_json_schema()["properties"]["name"]["enum"]) == known


def test_the_form_explains_every_field() -> None:
    fields = Request.model_json_schema()["properties"]
    assert all(
        field["description"].endswith(".") or "slack-webhook" in field["description"] for field in fields.values()
    )
    assert all(field["title"] for field in fields.values())
    assert all("anyOf" not in field for field in fields.values())  # the page would ask for a type first
