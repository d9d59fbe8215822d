"""bom.cdx.json: the model, the weights it began with, its data and its tools, as CycloneDX describes them (an ML-BOM).

cyclonedx-python-lib writes the document, except for the fields of machine learning (`modelCard`, `data`), which it has
no classes for yet; a test holds the whole to the schema that it comes with. Nothing in it follows from when it was
made: no timestamp, and the serial number follows from the model.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot7
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from headstart.base.licences import NONE, UNKNOWN
from headstart.handover.folder import ModelRecord

_NAMESPACE = uuid.UUID("b9d5f1a4-5f0e-5c0b-9d3e-6a1b6f8f2c11")  # of serial numbers; drawn once, arbitrary
_MODEL, _WEIGHTS, _DATA = "model", "weights", "data"  # how the parts name one another


def of(record: ModelRecord, *, dataset: str, form: str, n_images: int) -> dict[str, Any]:
    """Return the document. `n_images`: how many the model learned from; `form`: of the data, such as class folders."""
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        name=dataset,
        version=record.model_sha256[:12],
        description=f"An image classifier with {len(record.classes)} classes, an ONNX file",
        hashes=[_sha256(record.model_sha256)],
    )
    weights = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_WEIGHTS,
        name=record.backbone,
        version=record.weights_sha256[:12],
        description=f"The pretrained weights: {record.weights}",
        hashes=[_sha256(record.weights_sha256)],
        licenses=_licences(record.licence),
        properties=[Property(name="headstart:licence_source", value=record.licence_source)],
    )
    data = Component(
        type=ComponentType.DATA,
        bom_ref=_DATA,
        name=dataset,
        version=record.training_data_sha256[:12],
        description=f"The labelled images, {form}; {n_images} of them to learn from",
        properties=[Property(name="headstart:training_data_sha256", value=record.training_data_sha256)],
    )
    document = Bom(
        serial_number=uuid.uuid5(_NAMESPACE, record.model_sha256),
        metadata=BomMetaData(component=model, tools=ToolRepository(components=_tools(record.versions))),
        components=[weights, data],
    )
    document.register_dependency(model, [weights, data])
    told: dict[str, Any] = json.loads(JsonV1Dot7(document).output_as_string())
    del told["metadata"]["timestamp"]
    told["metadata"]["component"]["modelCard"] = _model_card(record)
    (described,) = (each for each in told["components"] if each["bom-ref"] == _DATA)
    classes = [{"name": "headstart:classes", "value": json.dumps(record.classes, ensure_ascii=False)}]
    described["data"] = [{"type": "dataset", "name": dataset, "contents": {"properties": classes}}]
    return told


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _licences(name: str) -> list[License]:
    """Return the licence as CycloneDX names it: by its SPDX identifier, as an expression, or not at all."""
    if name in (NONE, UNKNOWN):
        return []
    declared = LicenseAcknowledgement.DECLARED
    if name.startswith("LicenseRef-"):
        return [DisjunctiveLicense(name=name, acknowledgement=declared)]
    if is_supported_id(name):
        return [DisjunctiveLicense(id=name, acknowledgement=declared)]
    return [LicenseExpression(name, acknowledgement=declared)]


def _tools(versions: dict[str, str]) -> list[Component]:
    return [
        Component(
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            name=name,
            version=version,
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in versions.items()
    ]


def _model_card(record: ModelRecord) -> dict[str, Any]:
    """Return what CycloneDX calls the model card; its numbers are strings."""
    test = record.test

    def metric(kind: str, value: float, low: float, high: float) -> dict[str, Any]:
        interval = {"lowerBound": str(low), "upperBound": str(high)}
        return {"type": kind, "value": str(value), "slice": "held-out images", "confidenceInterval": interval}

    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "modelArchitecture": record.backbone,
            "datasets": [{"ref": _DATA}],
            "inputs": [
                {"format": f"{record.input.name}: {record.input.dtype} [{', '.join(map(str, record.input.shape))}]"}
            ],
            "outputs": [
                {"format": f"{name}: {field['dtype']} [{', '.join(map(str, field['shape']))}]"}
                for name, field in record.outputs.model_dump().items()
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                metric("accuracy", test.accuracy, test.accuracy_low, test.accuracy_high),
                metric("macro F1", test.macro_f1, test.macro_f1_low, test.macro_f1_high),
            ]
        },
        "considerations": {
            "technicalLimitations": [
                "The figures hold for images from the same source as the training images.",
                "One of the classes is assigned to every image, even to one that shows none of them.",
                f"It sees {record.preprocessing.seen}.",
            ]
        },
    }
