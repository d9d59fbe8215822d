"""A finished model: its metadata, and its answers for images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from PIL import Image

from headstart.base.errors import CheckError
from headstart.base.label_sets import members
from headstart.base.reading import exists, is_folder
from headstart.images.decoding import decode, from_pillow
from headstart.images.deep import ALL_BITS
from headstart.images.formats import UnreadableError
from headstart.onnx.model_folder import MODEL
from headstart.onnx.runtime import session

FORMAT = 1  # of the model folder; model.schema.json describes its model.json. Older formats stay readable

NOVEL_ABOVE = 0.99  # people are told of a novelty above it: about one familiar image in a hundred has that


class Answer(NamedTuple):
    """The model's answer for one image."""

    ranked: list[tuple[str, float]]  # label and probability, most probable first
    abstains: bool  # the first probability is below the model's threshold
    novelty: float | None  # 0..1, share of held-out images nearer to the training images; None: not an output
    label_set: tuple[str, ...] | None = None  # most probable first, holds the true label as often as the model promises

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.ranked[0][1]


_EXPECTED = "A path, the bytes of a file, a Pillow image or a uint8 array [H, W, 3] in RGB was expected"
_BYTES = bytes | bytearray | memoryview
_SINGLE = str | Path | _BYTES | Image.Image
Picture = str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray  # the last: uint8 [H, W, 3] in RGB


class Model:
    """A session and the metadata of a model.onnx."""

    def __init__(self, path: Path, threads: int = 0, spins: bool = True) -> None:
        """Load `path`, a model.onnx or the folder that holds it; CheckError if headstart did not export it.

        `threads`: of one call; 0 takes every core. `spins`: they wait for work without sleeping, see `session`.
        """
        self.file = file_of(path)
        self._session = session(self.file, threads, spins)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        written = self.metadata.get("format", "1")
        if written.isdigit() and int(written) > FORMAT:
            raise CheckError(
                f"{self.file} has format {written}. Format {FORMAT} or below was expected. Install the headstart that"
                f" wrote it: {json.loads(self.metadata.get('versions', '{}')).get('headstart', 'a newer version')}."
            )
        self.output_names = [output.name for output in self._session.get_outputs()]
        try:
            self._read_metadata()
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise CheckError(f"{self.file} names no classes. A model exported by headstart was expected.") from None

    def _read_metadata(self) -> None:
        """Read what `Facts` of headstart.handover.folder describes; one of several errors where it is not that."""
        self.classes: list[str] = json.loads(self.metadata["classes"])
        self.abstain_below = float(self.metadata.get("abstain_below", 0))
        self.bits = int(self.metadata.get("bits", ALL_BITS))  # of 16 a channel that hold values; see `decode`
        sets = json.loads(self.metadata.get("label_sets", "null"))
        self.set_coverage: float | None = sets and float(sets["coverage"])  # that label sets promise; None: it has none
        self._quantiles = sets and np.array(sets["quantiles"], np.float64)
        is_list = isinstance(self.classes, list) and all(isinstance(name, str) for name in self.classes)
        if not is_list or len(set(self.classes)) < max(len(self.classes), 1):
            raise ValueError(self.classes)
        if sets and self._quantiles.shape not in ((1,), (len(self.classes),)):
            raise ValueError(sets)

    def decode(self, data: bytes) -> np.ndarray:
        """Return the bytes of an image file as the model takes it, uint8 [H, W, 3]; UnreadableError if it is none."""
        return decode(data, self.bits).rgb

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output of the model, each with N rows, for uint8 [N, H, W, 3], RGB of any size."""
        return dict(zip(self.output_names, self._session.run(self.output_names, {"image": images}), strict=True))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [N, C] for uint8 [N, H, W, 3], RGB of any size."""
        found: np.ndarray = self._session.run(["probabilities"], {"image": images})[0]
        return found

    def __call__(self, images: np.ndarray, top: int | None = None) -> list[Answer]:
        """Return one answer per image of uint8 [N, H, W, 3], RGB of any size, with the `top` most probable classes."""
        return self.answers(self.outputs(images), top)

    def answers(self, outputs: Mapping[str, np.ndarray], top: int | None = None) -> list[Answer]:
        """Return one answer per row of the model's outputs, with the `top` most probable classes."""
        found = outputs["probabilities"]
        novelty = outputs.get("novelty", [None] * len(found))
        sets = [None] * len(found) if self._quantiles is None else members(found, self._quantiles)
        answers = []
        for row, new, held in zip(found, novelty, sets, strict=True):
            best = np.argsort(-row, kind="stable")
            ranked = [(self.classes[index], float(row[index])) for index in best[:top]]
            in_set = None if held is None else tuple(self.classes[index] for index in best if held[index])
            abstains, unlike = bool(row.max() < self.abstain_below), None if new is None else float(new)
            answers.append(Answer(ranked, abstains, unlike, in_set))
        return answers

    @overload
    def predict(self, images: Picture, top: int | None = None) -> Answer: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[Picture], top: int | None = None) -> list[Answer]: ...

    def predict(self, images: Picture | Sequence[Picture], top: int | None = None) -> Answer | list[Answer]:
        """Return the answer for one image, or a list of answers for a sequence of images or uint8 [N, H, W, 3].

        Images may differ in size. `top`: the number of classes in an answer, all if None. UnreadableError if an image
        is not usable; with several images it names the number of the image.
        """
        if top is not None and top < 1:
            raise ValueError(f"top is {top}. 1 or more was expected, or None for all classes.")
        if isinstance(images, _SINGLE) or (isinstance(images, np.ndarray) and images.ndim < 4):
            return self(self._rgb(images)[None], top)[0]
        several: object = images  # a caller may pass anything, despite the annotation
        if not isinstance(several, Iterable):
            several = [self._rgb(several)]  # raises an error that names the type
        return [self(self._rgb(image, f"image {number}: ")[None], top)[0] for number, image in enumerate(several)]

    def _rgb(self, picture: object, which: str = "") -> np.ndarray:
        """Return uint8 [H, W, 3], upright."""
        if isinstance(picture, np.ndarray):
            if picture.dtype == np.uint8 and picture.shape[2:] == (3,) and picture.size:
                return picture
            raise UnreadableError(f"{which}{picture.dtype} {list(picture.shape)} is not an image. {_EXPECTED}")
        name = f"'{picture}'" if isinstance(picture, str | Path) else f"a {type(picture).__name__} object"
        try:
            if isinstance(picture, str | Path):
                return self.decode(_bytes_of(picture))
            if isinstance(picture, _BYTES):
                return self.decode(bytes(picture))
            if isinstance(picture, Image.Image):
                return from_pillow(picture, self.bits)
        except UnreadableError as error:
            raise UnreadableError(f"{which}{name} is not a usable image: {error}") from None
        except OSError as error:
            raise UnreadableError(f"{which}{name} cannot be read: {error.strerror}") from None
        raise UnreadableError(f"{which}{type(picture).__name__} is not an image. {_EXPECTED}")


def load(path: str | Path) -> Model:
    """Return the finished model of a folder such as artifacts/model, or of a model.onnx; CheckError if it has none."""
    return Model(Path(path))


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except ValueError as error:  # such as a path with a null byte
        raise UnreadableError(str(error)) from None


def file_of(path: Path) -> Path:
    """Return the model.onnx that `path` is or holds; CheckError if there is none."""
    file = path / MODEL if is_folder(path) else path
    if not exists(file) or not file.is_file():
        raise CheckError(f"{file} does not exist. A model.onnx, or a folder with one, was expected.")
    return file
