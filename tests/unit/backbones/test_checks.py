"""`backbone` notices preprocessing that its weights do not want, and features that serve no head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from headstart.backbones import checks, export, foreign, networks
from headstart.backbones.export import export_foreign, photographs
from headstart.backbones.networks import Backbone
from tests.support import graphs
from tests.support.backbones import settings

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
BYTES = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
NAMES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "mobilenet_v2")


@pytest.fixture(scope="module")
def bundled_networks() -> dict[str, Backbone]:
    return {name: networks.load(settings(name=name), Path(), lambda line: None) for name in NAMES}


def warnings(backbone: Backbone, **changes: object) -> list[str]:
    preprocessing = replace(backbone.preprocessing, **changes)
    return checks.of_network(replace(backbone, preprocessing=preprocessing), export.resized(preprocessing)[1])


@pytest.mark.parametrize("name", NAMES)
def test_no_bundled_network_is_warned_of_as_it_was_trained(name: str, bundled_networks: dict[str, Backbone]) -> None:
    assert warnings(bundled_networks[name]) == []


def test_lite0_with_the_mean_and_std_of_imagenet_is_noticed(bundled_networks: dict[str, Backbone]) -> None:
    (said,) = warnings(bundled_networks["tf_efficientnet_lite0"], **IMAGENET)
    assert said.startswith(
        "photographs reach the first batch norm of timm/tf_efficientnet_lite0 with 5.1 times the variance that it saw"
        " in training; 1 is right, 0.4 to 2.5 usual. With 0.5 mean and std it would be 1."
    )


@pytest.mark.parametrize("name", NAMES)
def test_mean_and_std_of_another_network_are_noticed(name: str, bundled_networks: dict[str, Backbone]) -> None:
    other = HALF if name == "mobilenet_v2" else IMAGENET
    assert len(warnings(bundled_networks[name], **other)) == 1


def test_values_of_0_to_255_are_noticed(bundled_networks: dict[str, Backbone]) -> None:
    said = warnings(bundled_networks["tf_efficientnet_lite0"], **BYTES)
    assert "times the variance that it saw in training" in said[0]


def test_a_classifier_of_other_classes_is_noticed(bundled_networks: dict[str, Backbone]) -> None:
    """As where tensors were mapped wrongly."""
    known = bundled_networks["mobilenet_v2"]
    assert known.classifier is not None
    other = torch.nn.Linear(1280, 1000)
    other.load_state_dict({key: value.roll(1, 0) for key, value in known.classifier.state_dict().items()})
    (said,) = warnings(replace(known, classifier=other))
    assert "where 1 to 5 was expected" in said


def test_a_network_without_batch_norms_or_classifier_is_not_judged(tmp_path: Path) -> None:
    vit = networks.load(settings(name="vit_tiny_patch16_224", weights="random", input_px=32), tmp_path, print)
    assert warnings(replace(vit, weights="file: a.pth")) == []


def test_the_pieces_of_photographs_are_the_same_every_time_and_whole_squares() -> None:
    one, other = checks.crops(photographs()), checks.crops(photographs())
    assert len(one) == checks.N_CROPS
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    assert all(image.shape[0] == image.shape[1] for image in one)


def test_features_that_serve_no_head_are_told_with_the_figure() -> None:
    random = np.random.default_rng(0)
    sound = random.normal(size=(32, 100))
    assert checks.oddities("last", sound) == []
    (said,) = checks.oddities("last", sound * 1e6)
    assert "the level 'last' on 32 pieces of photographs have a root mean square of 1.0e+06; at most 1e+04" in said
    half = np.where(np.arange(100) < 60, 3.0, sound)
    (said,) = checks.oddities("last", half)
    assert said.startswith("60 of 100 of the features of the level 'last' on 32 pieces of photographs are the same for")
    (said,) = checks.oddities("last", random.normal(size=(32, 2)) @ random.normal(size=(2, 100)))
    assert "vary in 2 of 32 directions; a tenth of them or more was expected" in said


def test_a_graph_with_dead_features_is_warned_of(tmp_path: Path) -> None:
    graph = graphs.nchw()
    dead: onnx.TensorProto = graph.graph.initializer[1]
    dead.CopyFrom(numpy_helper.from_array(-np.abs(numpy_helper.to_array(dead)), dead.name))  # nothing passes its ReLU
    given = {"name": "onnx", **graphs.saved(graph, tmp_path / "net.onnx"), **graphs.PREPARED}
    made = export_foreign(foreign.load(settings(**given), tmp_path, lambda line: None))
    assert [each.partition(" of ")[0] for each in made.warnings] == ["12"]
    assert "are the same for all; fewer than half were expected" in made.warnings[0]
