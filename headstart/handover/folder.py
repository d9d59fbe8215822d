"""The records in artifacts/int8 and artifacts/model.

model.schema.json is generated from `ModelRecord`; a test checks that the two agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from headstart.base.files import check_digest
from headstart.base.records import Digest, Record
from headstart.evaluation.folder import Candidate, LabelSets, TestScores
from headstart.images.deep import ALL_BITS, LEAST_BITS
from headstart.onnx.backbone_folder import PreprocessingRecord
from headstart.onnx.model_folder import CONFORMANCE, EXPECTED, RECORD

INT8_BACKBONE = "backbone.int8.onnx"
_INT8_RECORD = "int8.json"


# artifacts/int8


class Try(Record):
    """One way to quantise the backbone, judged on validation images."""

    name: str
    accuracy: float
    drop: float  # of accuracy against float32; negative: a gain
    drop_high: float  # its one-sided 95 % bound
    is_acceptable: bool
    speedup: float  # times as fast as float32, one image at a time, on `cpu`
    n_bytes: int
    chosen: bool


class Trial(Record):
    """All tries, and what they were judged by."""

    tries: list[Try]
    float_accuracy: float
    n_images: int  # validation images
    n_calibration: int  # training images that set the ranges
    max_accuracy_drop: float
    cpu: str  # the processor's instructions


class Int8Record(Record):
    """The fields of int8.json."""

    chosen: str | None  # the name of the try that ships
    backbone_sha256: Digest | None  # of backbone.int8.onnx; None if none ships
    why: str
    float_bytes: int  # of the pieces in float32
    trial: Trial | None  # None if export.int8 is false


def read_int8(folder: Path) -> Int8Record:
    """Return the record of int8.json; CheckError if `quantize` has not written it."""
    return Int8Record.read(folder / _INT8_RECORD, "quantize")


def int8_piece(folder: Path) -> Path | None:
    """Return backbone.int8.onnx, None if none ships; CheckError unless it has the digest that int8.json names."""
    expected = read_int8(folder).backbone_sha256
    if expected is None:
        return None
    check_digest(folder / INT8_BACKBONE, expected, "quantize")
    return folder / INT8_BACKBONE


def write_int8(folder: Path, record: Int8Record) -> None:
    """Write int8.json."""
    record.write(folder / _INT8_RECORD)


# artifacts/model


class Int8Model(Record):
    """model.int8.onnx: the model in 8-bit integers, with the same inputs and outputs."""

    model_sha256: Digest
    why: str
    cpu: Annotated[str, Field(description="The processor on which it was measured; another may answer differently.")]


class Input(Record):
    """Images of one size, upright (EXIF applied), transparent pixels white. The model resizes and normalises them."""

    name: Literal["image"] = "image"
    dtype: Literal["uint8"] = "uint8"
    shape: tuple[Literal["N"], Literal["H"], Literal["W"], Literal[3]] = ("N", "H", "W", 3)
    colours: Literal["RGB"] = "RGB"


class Probabilities(Record):
    """Calibrated, in the order of `classes`."""

    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["N"], Annotated[int, Field(ge=2)]]


class LabelIndex(Record):
    """The index of the most probable class."""

    dtype: Literal["int64"] = "int64"
    shape: tuple[Literal["N"]] = ("N",)


class NoveltyOutput(Record):
    """0..1: the share of held-out images that are nearer to the training images."""

    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["N"]] = ("N",)


class Outputs(Record):
    """The model's outputs."""

    probabilities: Probabilities
    label_index: LabelIndex = LabelIndex()
    novelty: NoveltyOutput = NoveltyOutput()


class Facts(Record):
    """The model's metadata, in model.json and, as strings, in model.onnx."""

    format: Annotated[int, Field(description="Incremented when a reader of the older format would misread the folder.")]
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)]
    backbone: Annotated[str, Field(description="LIBRARY/NAME of the pretrained network.")]
    weights: Annotated[str, Field(description="Where its weights came from.")]
    weights_sha256: Digest
    licence: Annotated[
        str, Field(description="Of the weights: an SPDX expression, 'unknown', or 'none' for random weights.")
    ]
    licence_source: Annotated[str, Field(description="Who says so.")] = ""
    preprocessing: Annotated[PreprocessingRecord, Field(description="Done inside the model; a caller must not do it.")]
    bits: Annotated[
        int,
        Field(
            ge=LEAST_BITS,
            le=ALL_BITS,
            description="Of files with 16 bits a channel: how many of them hold values. A value v is"
            " round(v * 255 / (2^bits - 1)) in `image`.",
        ),
    ] = ALL_BITS
    candidate: Annotated[
        Candidate,
        Field(
            description="Whether the backbone is frozen, as pretrained, or fine-tuned; adapted: frozen, with a head"
            " that was brought to images of another domain without their labels."
        ),
    ]
    training_data_sha256: Annotated[
        Digest, Field(description="Over the sorted (image SHA-256, label, group) rows of its training images.")
    ]
    temperature: Annotated[float, Field(gt=0, description="Of the calibration; folded into the model.")]
    abstain_below: Annotated[
        float, Field(ge=0, le=1, description="The model abstains if the highest probability is below it. 0: never.")
    ]
    versions: Annotated[dict[str, str], Field(description="Of the packages that built it.")]
    label_sets: LabelSets | None = None  # models of earlier versions have none


class ModelRecord(Facts):
    """The record beside model.onnx, whose own metadata holds `Facts` as strings."""

    model_config = ConfigDict(title=RECORD)

    model_sha256: Annotated[Digest, Field(description="Of model.onnx.")]
    int8: Int8Model | None
    input: Input = Input()
    outputs: Outputs
    opset: Annotated[int, Field(ge=1, description="The version of ONNX that a runtime must support.")]
    test: Annotated[TestScores, Field(description="Scores on the held-out images.")]


class Vector(Record):
    """A conformance image and the model's answer."""

    file: str
    label: str
    probabilities: list[float]


class Expected(Record):
    """conformance/expected.json."""

    tolerance: float  # of a probability
    images: list[Vector]


def read_model(folder: Path) -> ModelRecord:
    """Return the record of model.json; CheckError if `export` has not written it."""
    return ModelRecord.read(folder / RECORD, "export")


def write_model(folder: Path, record: ModelRecord, expected: Expected) -> None:
    """Write model.json and conformance/expected.json."""
    expected.write(folder / CONFORMANCE / EXPECTED)
    record.write(folder / RECORD)


def model_schema() -> dict[str, Any]:
    """Return the JSON Schema of model.json."""
    schema = ModelRecord.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(model_schema(), indent=2, ensure_ascii=False))
