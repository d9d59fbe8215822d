"""A model.onnx in two parts, cut behind its resizing, so that images of different sizes can go on as one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.base.errors import CheckError
from headstart.onnx.runtime import session

_CUT = "pixels"  # uint8 [N, S, S, 3], between resizing and backbone: headstart/onnx/pieces.py


class Pieces:
    """The two parts, each a session of one thread. Their nodes are those of model.onnx, so are their answers."""

    def __init__(self, file: Path) -> None:
        """Cut `file`; CheckError if onnx is not installed or the model cannot be cut."""
        try:
            import onnx
            from onnx.utils import Extractor
        except ImportError:
            raise CheckError("--batch-ms needs onnx, which is not installed. Run `pip install onnx`.") from None
        model = onnx.load(file)
        self.output_names = [output.name for output in model.graph.output]
        try:
            extractor = Extractor(model)
            parts = [
                extractor.extract_model(["image"], [_CUT]),
                extractor.extract_model([_CUT], self.output_names),
            ]
        except Exception as error:  # it raises of many kinds
            raise CheckError(f"{file} cannot be cut behind its resizing: {error}. Leave --batch-ms out.") from None
        self._resize, self._network = (session(part.SerializeToString(), threads=1) for part in parts)

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Return uint8 [N, S, S, 3] for uint8 [N, H, W, 3]."""
        found: np.ndarray = self._resize.run([_CUT], {"image": images})[0]
        return found

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output of the model, each with N rows, for uint8 [N, S, S, 3]."""
        return dict(zip(self.output_names, self._network.run(self.output_names, {_CUT: pixels}), strict=True))
