"""Networks of Keras, exported by tf2onnx, give what Keras gives: `uv pip install tensorflow-cpu tf2onnx`, 0.7 GB."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from headstart.backbones import export, foreign
from headstart.backbones.export import export_foreign
from headstart.base.errors import ParamError
from headstart.onnx import runtime
from tests.support.backbones import settings
from tests.support.foreign import features_of
from tests.support.graphs import saved

PX = 96
_HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
_RAW = {"mean": [0.0, 0.0, 0.0], "std": [0.003921569, 0.003921569, 0.003921569]}  # as the guide has it, for 0..255
_CAFFE = {"mean": [0.4850196, 0.4579569, 0.4076039], "std": _RAW["std"], "channel_order": "bgr"}
# Application, its module with preprocess_input, and the same as parameters.
APPLICATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("MobileNetV2", "mobilenet_v2", _HALF),
    ("InceptionV3", "inception_v3", _HALF),
    ("ResNet50", "resnet", _CAFFE),
    ("VGG16", "vgg16", _CAFFE),
    ("DenseNet121", "densenet", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
    ("EfficientNetB0", "efficientnet", _RAW),
]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("tensorflow") is None or find_spec("tf2onnx") is None, reason="tensorflow or tf2onnx is not installed"
    ),
]


def exported(name: str) -> tuple[Any, onnx.ModelProto]:
    """Return an application with drawn weights, and its graph as tf2onnx writes it."""
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(PX, PX, 3), classes=7)
    random = np.random.default_rng(0)
    for weight in model.weights:  # no batch norm without effect
        size = 0.02 * max(float(np.abs(weight.numpy()).mean()), 1e-3)
        weight.assign(weight.numpy() + random.uniform(0, size, weight.shape).astype(np.float32))
    signature = [tf.TensorSpec([None, PX, PX, 3], tf.float32, name="image")]
    return model, tf2onnx.convert.from_keras(model, input_signature=signature, opset=17)[0]


@pytest.mark.parametrize(("name", "module", "prepared"), APPLICATIONS, ids=[each[0] for each in APPLICATIONS])
def test_an_application_of_keras_gives_what_its_classifier_reads(
    name: str, module: str, prepared: dict[str, Any], tmp_path: Path
) -> None:
    import keras

    model, graph = exported(name)
    given = {"name": "onnx", "crop_fraction": 0.875, "interpolation": "bilinear", **prepared}
    found = foreign.load(settings(**given, **saved(graph, tmp_path / "keras.onnx")), tmp_path, lambda line: None)
    assert (found.image.layout, found.image.side_px) == ("NHWC", PX)
    made = export_foreign(found)
    pixels = export.resized(found.preprocessing)[1]
    start = round((pixels.shape[1] - PX) / 2)
    square = pixels[:, start : start + PX, start : start + PX].astype(np.float32)
    theirs = getattr(keras.applications, module).preprocess_input(square.copy())
    expected = keras.Model(model.input, model.layers[-1].input).predict(theirs, verbose=0)
    assert made.levels[-1].width == expected.shape[1]
    assert runtime.difference(features_of(made), expected).relative < 1e-3


def test_what_tf2onnx_cannot_say_in_onnx_is_told_by_name(tmp_path: Path) -> None:
    _, graph = exported("ConvNeXtTiny")
    with pytest.raises(ParamError, match=r"operators that are not ONNX's own \(ai\.onnx\.Erfc"):
        foreign.load(settings(name="onnx", **_RAW, **saved(graph, tmp_path / "keras.onnx")), tmp_path, print)
