"""What the stage `export` refuses before it reads anything but backbone.json; tests/pipeline has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import params_file
from headstart.base.errors import CheckError, ParamError
from headstart.layout import Layout
from headstart.onnx import backbone_folder
from tasks import export
from tests.support.images import ROOT
from tests.support.reports import BACKBONE

PARAMS = params_file.load(ROOT / "params.yaml")


def test_a_licence_that_may_not_ship_stops_the_export(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.backbone.mkdir(parents=True)
    record = BACKBONE.model_copy(update={"licence": "CC-BY-NC-4.0", "licence_source": "timm says 'cc-by-nc-4.0'"})
    backbone_folder.write(layout.backbone, record)
    with pytest.raises(ParamError, match=r"CC-BY-NC-4.0 to export.licences"):
        export.run(PARAMS, layout)
    assert not layout.export.exists()
    allowing = PARAMS.model_copy(update={"export": PARAMS.export.model_copy(update={"licences": "any"})})
    with pytest.raises(CheckError, match="evaluat"):  # the next thing that it reads
        export.run(allowing, layout)
