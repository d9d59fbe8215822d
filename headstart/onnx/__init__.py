"""ONNX pieces: joined, written, run."""
