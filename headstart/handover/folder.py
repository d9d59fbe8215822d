"""What artifacts/int8 and artifacts/model hold: the records that are handed over, or decide about it.

model.schema.json is made of `ModelRecord`; a test holds the two together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from headstart.base.records import Digest, Record
from headstart.evaluation.folder import Candidate, TestScores
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
    """What the tries were judged by."""

    tries: list[Try]
    float_accuracy: float
    n_images: int  # of validation
    n_calibration: int  # training images that the ranges are from
    max_accuracy_drop: float
    cpu: str  # the processor's instructions


class Int8Record(Record):
    """int8.json."""

    chosen: str | None  # the name of the try that ships
    why: str
    float_bytes: int  # of the pieces in float32
    trial: Trial | None  # None where export.int8 is false


def read_int8(folder: Path) -> Int8Record:
    """Return what int8.json says; CheckError if `quantize` has not written it."""
    return Int8Record.read(folder / _INT8_RECORD, "quantize")


def write_int8(folder: Path, record: Int8Record) -> None:
    """Write int8.json."""
    record.write(folder / _INT8_RECORD)


# artifacts/model


class Int8Model(Record):
    """model.int8.onnx: the same inputs and outputs in 8-bit integers."""

    model_sha256: Digest
    why: str
    cpu: Annotated[str, Field(description="The processor on which it was measured; another may answer differently.")]


class Input(Record):
    """Images of one size, upright (EXIF applied), transparent pixels white. Resizing and normalisation are inside."""

    name: Literal["image"] = "image"
    dtype: Literal["uint8"] = "uint8"
    shape: tuple[Literal["N"], Literal["H"], Literal["W"], Literal[3]] = ("N", "H", "W", 3)
    colours: Literal["RGB"] = "RGB"


class Probabilities(Record):
    """Calibrated, in the order of `classes`."""

    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["N"], Annotated[int, Field(ge=2)]]


class LabelIndex(Record):
    """Of the most probable class."""

    dtype: Literal["int64"] = "int64"
    shape: tuple[Literal["N"]] = ("N",)


class NoveltyOutput(Record):
    """0..1: the share of held-out images that are nearer to what the model was trained on."""

    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["N"]] = ("N",)


class Outputs(Record):
    """What the model gives."""

    probabilities: Probabilities
    label_index: LabelIndex = LabelIndex()
    novelty: NoveltyOutput = NoveltyOutput()


class Facts(Record):
    """What the model says of itself, in model.json and, as strings, in model.onnx."""

    format: Annotated[int, Field(description="Counted up when a reader of the older format would misread the folder.")]
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)]
    backbone: Annotated[str, Field(description="LIBRARY/NAME of the pretrained network.")]
    weights: Annotated[str, Field(description="Where its weights came from.")]
    weights_sha256: Digest
    licence: Annotated[str, Field(description="Of the weights.")]
    preprocessing: Annotated[
        PreprocessingRecord, Field(description="What the model does inside; nothing that a caller has to do.")
    ]
    candidate: Annotated[Candidate, Field(description="Whether the backbone is as pretrained, or was trained further.")]
    training_data_sha256: Annotated[
        Digest, Field(description="Over the sorted (image SHA-256, label, group) rows that it learned from.")
    ]
    temperature: Annotated[float, Field(gt=0, description="Of the calibration; folded into the model.")]
    abstain_below: Annotated[
        float, Field(ge=0, le=1, description="Where the highest probability is below it, the model abstains. 0: never.")
    ]
    versions: Annotated[dict[str, str], Field(description="Of the packages that made it.")]


class ModelRecord(Facts):
    """What a finished model says of itself, beside model.onnx, whose own metadata has `Facts` as strings."""

    model_config = ConfigDict(title=RECORD)

    model_sha256: Annotated[Digest, Field(description="Of model.onnx.")]
    int8: Int8Model | None
    input: Input = Input()
    outputs: Outputs
    opset: Annotated[int, Field(ge=1, description="Of ONNX: what a runtime has to know.")]
    test: Annotated[TestScores, Field(description="Of the held-out images.")]


class Vector(Record):
    """A conformance image and what the model says of it."""

    file: str
    label: str
    probabilities: list[float]


class Expected(Record):
    """conformance/expected.json."""

    tolerance: float  # of a probability
    images: list[Vector]


def read_model(folder: Path) -> ModelRecord:
    """Return what model.json says; CheckError if `export` has not written it."""
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
