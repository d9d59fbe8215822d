"""The stage `backbone` with a network from a hub: its commit is recorded, and what it wrote serves without the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart import params_file
from headstart.backbones import checks, export, networks
from headstart.base.errors import ParamError
from headstart.layout import Layout
from headstart.onnx import backbone_folder, runtime
from tasks import __main__ as tasks
from tasks import backbone as stage
from tests.support.backbones import settings
from tests.support.hub import Hub, of_timm, of_transformers, vit
from tests.support.images import ROOT

NAME = "hf-hub:mine/net"


def run(layout: Layout, **changes: object) -> dict[str, Any]:
    values = params_file.load(ROOT / "params.yaml")
    values = values.model_copy(update={"backbone": settings(**{"name": NAME, "weights": "default", **changes})})
    stage.run(values, layout)
    facts: dict[str, Any] = json.loads((layout.backbone / "backbone.json").read_text())
    return facts


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_the_stage_exports_it_records_the_commit_and_pytorch_rebuilds_it(
    hub: Hub, tmp_path: Path, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = of_timm()[0] if library == "timm" else of_transformers(vit(), tmp_path / "saved")
    repository = hub.publish("mine/net", files)
    layout = replace(Layout(tmp_path / "one"), cache_dir=str(tmp_path / "cache"))
    facts = run(layout)
    assert facts["name"] == NAME
    assert facts["licence"] == "Apache-2.0"
    assert (facts["hub"]["repository"], facts["hub"]["revision"]) == ("mine/net", repository.names["main"])
    assert set(facts["hub"]["files"]) == {"config.json", "model.safetensors"} | (
        {"preprocessor_config.json"} if library == "transformers" else set()
    )
    assert facts["hub"]["files"]["model.safetensors"] == facts["weights_sha256"]
    assert ("transformers" in facts["versions"]) == (library == "transformers")
    said = capsys.readouterr().out
    assert "backbone.onnx and PyTorch agree on 4 photographs to" in said
    module, preprocessing = networks.rebuilt(layout.backbone)
    pixels = export.resized(preprocessing)[1]
    session = runtime.session((layout.backbone / backbone_folder.BACKBONE).read_bytes())
    with torch.no_grad():
        ours = np.asarray(module(checks.prepared(pixels, preprocessing)))
    assert runtime.difference(session.run(None, {"pixels": pixels})[0], ours).relative < 1e-4
    # A second project takes it from the cache, and asks the hub for the commit alone.
    hub.asked.clear()
    again = replace(Layout(tmp_path / "two"), cache_dir=str(tmp_path / "cache"))
    run(again)
    assert hub.asked == ["GET /api/models/mine/net/revision/main"]
    assert "taken from the cache" in capsys.readouterr().out
    assert imported_by_a_later_run(again) == "[]"
    repository.commit({**files, "README.md": b"---\nlicense: gpl-3.0\n---\n"})
    with pytest.raises(ParamError, match=r"GPL-3\.0"):  # of the new commit, in a project that has noted none
        run(replace(Layout(tmp_path / "three"), cache_dir=str(tmp_path / "cache")))


def imported_by_a_later_run(layout: Layout) -> str:
    """Return what a run imports that finds the commit noted and the export kept, where no hub answers."""
    (layout.root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    changes = [f"cache.dir={layout.cache_dir}", f"backbone.name={NAME}", "backbone.weights=default"]
    params_file.assign(layout.root / "params.yaml", changes)
    code = (
        "import sys, tasks.__main__ as tasks; from pathlib import Path; tasks._run('backbone', Path());"
        " print(sorted({'torch', 'timm', 'transformers', 'onnx', 'huggingface_hub'} & sys.modules.keys()))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=layout.root, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_its_layer_groups_are_listed_without_its_weights(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved"))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert tasks.main(["backbone", "--list", NAME]) == 0
    said = capsys.readouterr().out
    assert f"{NAME}: 4 layer groups from the input to the head" in said
    assert "network.vit.layers.2" in said
    assert not any("model.safetensors" in asked for asked in hub.asked)
