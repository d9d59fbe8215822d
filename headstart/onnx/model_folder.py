"""The names of the files in artifacts/model. Nothing is imported here: those who deploy a model use them too."""

MODEL, INT8_MODEL = "model.onnx", "model.int8.onnx"
RECORD, CARD, SUMS = "model.json", "MODEL_CARD.md", "SHA256SUMS"
BOM, REFERENCE = "bom.cdx.json", "reference.json"
CONFORMANCE, EXPECTED = "conformance", "expected.json"
