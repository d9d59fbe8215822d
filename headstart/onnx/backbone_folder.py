"""backbone.json and the pieces beside it: what the stage `backbone` writes and other stages read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from headstart.base.files import promised
from headstart.base.records import Digest, Record

RESIZE, BACKBONE, TENSORS = "resize.onnx", "backbone.onnx", "backbone.safetensors"
_MAX_PX = 8192  # of a side: what a larger one takes does not fit into memory
_RECORD = "backbone.json"

LAST = "last"  # the level of the usual features, which the network's own classifier would read
Fit = Literal["crop", "squeeze", "pad"]  # how an image becomes a square
Pooling = Literal["map", "map_channels_last", "tokens", "class_and_tokens", "none"]
HubFeatures = Literal["classifier", "pooler", "class_token", "mean"]  # what the classifier reads, or which output


class PreprocessingRecord(Record):
    """What the model does to an image before its network sees it."""

    resize_px: Annotated[int, Field(ge=1, le=_MAX_PX, description="side of the square that an image is resized to")]
    input_px: Annotated[
        int, Field(ge=1, le=_MAX_PX, description="side of the centre crop of it that the network takes")
    ]
    crop_fraction: Annotated[float, Field(gt=0, le=1, description="input_px / resize_px, before rounding")]
    interpolation: Literal["bilinear", "bicubic"]
    mean: Annotated[tuple[float, float, float], Field(description="of pixels scaled to 0..1")]
    std: Annotated[tuple[float, float, float], Field(description="of pixels scaled to 0..1")]
    fit: Annotated[
        Fit,
        Field(
            description="what becomes the square: crop: the centre square of the image; squeeze: the whole image,"
            " distorted; pad: the whole image, with bars of the grey that the weights take for the mean"
        ),
    ] = "crop"

    @property
    def seen(self) -> str:
        """What the network sees of an image, in words that follow 'It sees'."""
        if self.fit == "crop":
            return "only the centre square of an image"
        how = {"squeeze": "squeezed to a square", "pad": "padded to a square with grey bars"}[self.fit]
        cut = (
            "" if self.input_px == self.resize_px else f", and of that the middle {self.input_px / self.resize_px:.0%}"
        )
        return f"the whole image, {how}{cut}"


class LevelRecord(Record):
    """A slice of the features: those of one depth of the network."""

    name: Annotated[str, Field(description="the module whose output it is, or 'last': the network's own features")]
    start: Annotated[int, Field(ge=0, description="column of `features` that it begins at")]
    width: Annotated[int, Field(ge=1, description="how many columns it has")]
    pooling: Annotated[Pooling, Field(description="how a module's output becomes numbers an image: averages")]


class SourceRecord(Record):
    """What was read from an ONNX graph of the user's, and what was taken from it."""

    input: str  # the tensor that takes images
    layout: Literal["NCHW", "NHWC"]
    type: str  # of the input, as ONNX calls it
    channel_order: Literal["rgb", "bgr"]
    outputs: list[str]  # the tensors that are levels, in their order


class HubRecord(Record):
    """The commit of a repository on the Hugging Face hub that a network comes from, and what it is built from."""

    repository: str  # OWNER/NAME
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]  # the commit
    library: Literal["timm", "transformers"]
    files: dict[str, Digest]  # that were read of it
    network: dict[str, Any]  # its config.json, without the names of classes
    takes: HubFeatures
    channel_order: Literal["rgb", "bgr"]


class BackboneRecord(Record):
    """backbone.json."""

    name: str  # LIBRARY/NAME
    weights: str  # where they came from
    weights_sha256: Digest
    licence: str  # of the weights: an SPDX expression, `unknown` or `none`
    licence_source: str  # who says so
    n_features: int  # of all levels
    levels: list[LevelRecord]  # the one nearest to the input first, `last` at the end
    preprocessing: PreprocessingRecord
    source: SourceRecord | None = None  # of a graph of the user's
    hub: HubRecord | None = None  # of a network that backbone.name takes from the Hugging Face hub
    resize_onnx_sha256: Digest
    backbone_onnx_sha256: Digest
    backbone_safetensors_sha256: Digest | None  # None: an ONNX graph of the user's, which PyTorch cannot run or train
    versions: dict[str, str]  # of the packages that made it
    warnings: Annotated[list[str], Field(default_factory=list)]  # of the checks on photographs


def read(folder: Path) -> BackboneRecord:
    """Return what backbone.json in artifacts/backbone says; CheckError if the stage `backbone` has not written it."""
    return BackboneRecord.read(folder / _RECORD, "backbone")


def write(folder: Path, record: BackboneRecord) -> None:
    """Write backbone.json."""
    record.write(folder / _RECORD)


def digests(record: BackboneRecord) -> dict[str, str]:
    """Return the SHA-256 of every file beside backbone.json, by its name."""
    found = {
        RESIZE: record.resize_onnx_sha256,
        BACKBONE: record.backbone_onnx_sha256,
        TENSORS: record.backbone_safetensors_sha256,
    }
    return {name: digest for name, digest in found.items() if digest}


def piece(folder: Path, name: str) -> Path:
    """Return one of the files that backbone.json names; CheckError unless it has the digest that is named there."""
    return promised(folder, name, digests(read(folder)), "backbone")
