"""Exported backbones in the cache of this machine's user, so that a second project or clone exports nothing.

What one follows from is known without importing torch: parameters, digests of files, versions of installed packages.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.backbones import bundled, hub, hub_errors, weights
from headstart.base.errors import CheckError
from headstart.base.files import are_as_promised
from headstart.base.licences import Licence
from headstart.base.progress import say
from headstart.onnx import backbone_folder
from headstart.store.shards import fingerprint

if TYPE_CHECKING:
    from headstart import params as parameters

VERSION = 3  # raise it when an edit changes what the stage `backbone` writes for the same parameters and weights
MADE_BY = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_NOT_A_FILE = ("bundled", "default", "random")


def made_for(params: parameters.Backbone, fit: str, weights_folder: Path | None = None) -> str | None:
    """Return the digest of everything that an exported backbone follows from; None where a name or a digest is wrong.

    A file of weights is known by its digest, bundled ones too, which are read for it; ParamError if it is another's.
    The library's own are known by the library's version, which names their URL. A network on the Hugging Face hub is
    known by its commit, which `weights_folder` notes; None without that folder.
    """
    is_on_hub, commit = hub_errors.is_on_hub(params.name), ""
    if is_on_hub:
        if weights_folder is None:
            return None
        commit = hub.commit_of(params.name, weights_folder, say)
    digest = params.sha256 or ""
    name = params.weights
    if params.weights == "bundled":
        try:
            entry = bundled.of(params.name)
        except bundled.NoneError:
            return None
        bundled.verified(entry, params.sha256)
        digest = entry.sha256
    elif params.weights not in _NOT_A_FILE:
        if not weights.is_url(params.weights):
            name = weights.given(params, Path(), lambda line: None).name
        if not digest:
            return None
    return fingerprint(
        version=str(VERSION),
        libraries=" ".join(f"{name} {version(name)}" for name in MADE_BY),
        **({"hub": f"{commit} {_version_or_none('transformers')}"} if is_on_hub else {}),
        machine=platform.machine(),
        weights=f"{name} {digest}",
        params=params.model_dump_json(exclude={"weights", "sha256"}),
        fit=fit,
    )


def _version_or_none(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def is_sound(folder: Path, judge: Callable[[Licence], None]) -> bool:
    """Return whether every file is as backbone.json says; `judge` may raise to refuse the licence that it names."""
    try:
        record = backbone_folder.read(folder)
    except CheckError:
        return False
    if not are_as_promised(folder, backbone_folder.digests(record)):
        return False
    judge(Licence(record.licence, record.licence_source))
    return True
