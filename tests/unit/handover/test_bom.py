"""What the exported folder says of itself in other tools' formats, held to these tools' own validators and readers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from headstart.handover import bom, folder, hub
from tests.support.images import ROOT

RECORD = folder.read_model(ROOT / "tests" / "models" / "format-1")
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_7)


def under(licence: str, weights: str = "random") -> folder.ModelRecord:
    return RECORD.model_copy(update={"licence": licence, "licence_source": "timm says so", "weights": weights})


def of(record: folder.ModelRecord = RECORD) -> dict[str, Any]:
    return bom.of(record, dataset="birds", form="class folders", n_images=500)


def named(document: dict[str, Any], ref: str) -> dict[str, Any]:
    (found,) = (part for part in document["components"] if part["bom-ref"] == ref)
    return found  # type: ignore[no-any-return]


LICENCES = ["none", "unknown", "Apache-2.0", "Apache-2.0 OR MIT", "LicenseRef-dinov3-license", "CC-BY-NC-4.0"]


@pytest.mark.parametrize("licence", LICENCES)
def test_it_is_what_cyclonedx_1_7_describes(licence: str) -> None:
    document = of(under(licence))
    assert VALIDATOR.validate_str(json.dumps(document)) is None
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.7")


def test_the_validator_refuses_what_is_not() -> None:
    document = of()
    document["metadata"]["component"]["modelCard"]["modelParameters"]["accuracy"] = 1
    assert VALIDATOR.validate_str(json.dumps(document)) is not None


def test_cyclonedx_reads_which_model_was_made_of_what() -> None:
    document = of()
    card = document["metadata"]["component"].pop("modelCard")
    named(document, "data").pop("data")  # the library has no classes for these two
    read: Any = Bom.from_json(document)  # type: ignore[attr-defined]
    assert read.metadata.component.hashes[0].content == RECORD.model_sha256
    assert {part.name for part in read.components} == {RECORD.backbone, "birds"}
    (model,) = (each for each in read.dependencies if each.ref.value == "model")
    assert {each.ref.value for each in model.dependencies} == {"weights", "data"}
    assert card["modelParameters"]["datasets"] == [{"ref": "data"}]
    assert card["modelParameters"]["inputs"] == [{"format": "image: uint8 [N, H, W, 3]"}]
    assert {"format": "probabilities: float32 [N, 2]"} in card["modelParameters"]["outputs"]
    (accuracy, _) = card["quantitativeAnalysis"]["performanceMetrics"]
    assert float(accuracy["value"]) == RECORD.test.accuracy
    assert {tool.name for tool in read.metadata.tools.components} == set(RECORD.versions)


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("none", None),
        ("unknown", None),
        ("MIT", [{"license": {"id": "MIT", "acknowledgement": "declared"}}]),
        ("MIT OR ISC", [{"expression": "MIT OR ISC", "acknowledgement": "declared"}]),
        ("LicenseRef-mine", [{"license": {"name": "LicenseRef-mine", "acknowledgement": "declared"}}]),
    ],
)
def test_the_licence_is_that_of_the_weights_and_of_nothing_else(licence: str, told: object) -> None:
    document = of(under(licence))
    weights = named(document, "weights")
    assert weights.get("licenses") == told
    assert weights["properties"] == [{"name": "headstart:licence_source", "value": "timm says so"}]
    assert "licenses" not in document["metadata"]["component"]
    assert "licenses" not in named(document, "data")


def test_the_same_model_gives_the_same_document_and_another_one_another_serial_number() -> None:
    assert json.dumps(of()) == json.dumps(of())
    assert "timestamp" not in json.dumps(of())
    other = RECORD.model_copy(update={"model_sha256": "ab" * 32})
    assert of(other)["serialNumber"] != of()["serialNumber"]


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("none", {}),
        ("unknown", {"license": "unknown"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("LicenseRef-dinov3-license", {"license": "other", "license_name": "LicenseRef-dinov3-license"}),
    ],
)
def test_a_hub_reads_the_metadata_of_the_card(licence: str, told: dict[str, str]) -> None:
    card = hub.with_metadata("# Model card\n\nText.\n", under(licence, "timm: timm/resnet10t.c3_in1k"), "birds")
    read = ModelCard(card)
    data = read.data.to_dict()
    assert {name: value for name, value in data.items() if name.startswith("license")} == told
    assert data["pipeline_tag"] == "image-classification"
    assert data["base_model"] == "timm/resnet10t.c3_in1k"
    (accuracy, f1) = read.data.eval_results or []
    assert (accuracy.metric_type, f1.metric_type) == ("accuracy", "f1")
    assert accuracy.metric_value == pytest.approx(RECORD.test.accuracy, abs=1e-6)
    assert read.text.strip() == hub.body(card).strip() == "# Model card\n\nText."


def test_the_base_model_of_a_network_on_a_hub_is_its_repository() -> None:
    record = under("MIT", f"hf-hub: google/vit-base-patch16-224@{'ab' * 20}")
    assert ModelCard(hub.with_metadata("Text.", record, "birds")).data.to_dict()["base_model"] == (
        "google/vit-base-patch16-224"
    )


def test_weights_that_are_on_no_hub_are_no_base_model() -> None:
    for weights in ("random", "bundled: a.pth", "timm: a.pth", "torchvision: A", "file: a/b.pth"):
        assert "base_model" not in ModelCard(hub.with_metadata("Text.", under("MIT", weights), "birds")).data.to_dict()


def test_an_older_card_has_no_metadata_to_leave_out() -> None:
    card = (ROOT / "tests" / "models" / "format-1" / "MODEL_CARD.md").read_text()
    assert hub.body(card) == card
