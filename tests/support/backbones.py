"""What params.yaml says of the backbone, with changes."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML

from headstart import params
from tests.support.images import ROOT


def settings(**changes: object) -> params.Backbone:
    values: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")["backbone"]
    return params.Backbone.model_validate({**values, **changes})
