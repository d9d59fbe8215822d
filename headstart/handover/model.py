"""A finished model: what its file says of itself, and what it says of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart.base.errors import CheckError
from headstart.onnx.model_folder import MODEL
from headstart.onnx.runtime import session

FORMAT = 1  # of the handed-over folder; model.schema.json describes its model.json. Older ones are read for ever


class Answer(NamedTuple):
    """What the model says of one image."""

    ranked: list[tuple[str, float]]  # label and probability, most probable first
    abstains: bool  # the first probability is below the model's threshold
    novelty: float | None  # 0..1, share of held-out images that are nearer to the training images; None: not told

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """That of `label`."""
        return self.ranked[0][1]


class Model:
    """A session and the metadata of a model.onnx."""

    def __init__(self, path: Path) -> None:
        """Load `path`, a model.onnx or the folder that holds it; CheckError if it is no model of headstart's."""
        self.file = file_of(path)
        self._session = session(self.file)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        written = self.metadata.get("format", "1")
        if written.isdigit() and int(written) > FORMAT:
            raise CheckError(
                f"{self.file} has format {written}. {FORMAT} or below was expected by this headstart. Install the one"
                f" that wrote it: {json.loads(self.metadata.get('versions', '{}')).get('headstart', 'a newer one')}."
            )
        self._tells_novelty = "novelty" in {output.name for output in self._session.get_outputs()}
        try:
            self.classes: list[str] = json.loads(self.metadata["classes"])
            self.abstain_below = float(self.metadata.get("abstain_below", 0))
        except (KeyError, ValueError):
            raise CheckError(f"{self.file} names no classes. A model exported by headstart was expected.") from None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [N, C] for uint8 [N, H, W, 3], RGB of any size."""
        found: np.ndarray = self._session.run(["probabilities"], {"image": images})[0]
        return found

    def __call__(self, images: np.ndarray, top: int | None = None) -> list[Answer]:
        """Return an answer an image of uint8 [N, H, W, 3], RGB of any size, with the `top` most probable classes."""
        if self._tells_novelty:
            found, novelty = self._session.run(["probabilities", "novelty"], {"image": images})
        else:
            found, novelty = self.probabilities(images), [None] * len(images)
        answers = []
        for row, new in zip(found, novelty, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            ranked = [(self.classes[index], float(row[index])) for index in best]
            answers.append(Answer(ranked, bool(row.max() < self.abstain_below), None if new is None else float(new)))
        return answers


def file_of(path: Path) -> Path:
    """Return the model.onnx that `path` is or holds; CheckError if there is none."""
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise CheckError(f"{file} does not exist. A model.onnx, or a folder with one, was expected.")
    return file
