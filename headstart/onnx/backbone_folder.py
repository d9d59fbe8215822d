"""backbone.json and the pieces beside it: what the stage `backbone` writes and other stages read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from headstart.base.files import check_digest
from headstart.base.records import Digest, Record

RESIZE, BACKBONE, TENSORS = "resize.onnx", "backbone.onnx", "backbone.safetensors"
_MAX_PX = 8192  # of a side: what a larger one takes does not fit into memory
_RECORD = "backbone.json"


class PreprocessingRecord(Record):
    """What the model does to an image before its network sees it."""

    resize_px: Annotated[
        int, Field(ge=1, le=_MAX_PX, description="side of the square that the centre of an image is resized to")
    ]
    input_px: Annotated[
        int, Field(ge=1, le=_MAX_PX, description="side of the centre crop of it that the network takes")
    ]
    crop_fraction: Annotated[float, Field(gt=0, le=1, description="input_px / resize_px, before rounding")]
    interpolation: Literal["bilinear", "bicubic"]
    mean: Annotated[tuple[float, float, float], Field(description="of pixels scaled to 0..1")]
    std: Annotated[tuple[float, float, float], Field(description="of pixels scaled to 0..1")]


class BackboneRecord(Record):
    """backbone.json."""

    name: str  # LIBRARY/NAME
    weights: str  # where they came from
    weights_sha256: Digest
    licence: str  # of the weights
    n_features: int
    preprocessing: PreprocessingRecord
    resize_onnx_sha256: Digest
    backbone_onnx_sha256: Digest
    backbone_safetensors_sha256: Digest
    versions: dict[str, str]  # of the packages that made it


def read(folder: Path) -> BackboneRecord:
    """Return what backbone.json in artifacts/backbone says; CheckError if the stage `backbone` has not written it."""
    return BackboneRecord.read(folder / _RECORD, "backbone")


def write(folder: Path, record: BackboneRecord) -> None:
    """Write backbone.json."""
    record.write(folder / _RECORD)


def piece(folder: Path, name: str) -> Path:
    """Return one of the files that backbone.json names; CheckError unless it has the digest that is named there."""
    check_digest(folder / name, getattr(read(folder), name.replace(".", "_") + "_sha256"), "backbone")
    return folder / name
