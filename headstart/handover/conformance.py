"""Checks the model on held-out images, and ships a few of them with their answers to check any copy of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, count_and_name
from headstart.base.files import located
from headstart.handover.folder import Expected, Facts, Vector
from headstart.images import decoding
from headstart.onnx import runtime
from headstart.onnx.model_folder import CONFORMANCE

if TYPE_CHECKING:
    import polars as pl

# Of a probability: the joined graph in float32 at batch 1 against the features as `embed` computed and stored them.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_ORIENTATION = 0x0112  # the EXIF tag


def check_images(
    model: bytes,
    files: Sequence[Path],
    predictions: pl.DataFrame,
    facts: Facts,
    tolerance: float = TOLERANCES["float32"],
    advance: Callable[[int], None] = lambda n: None,
) -> None:
    """Run the model on each of the original files; CheckError if an answer differs from the one of `evaluate`.

    If features were computed or stored in half precision, a label may differ if both classes are within the tolerance.
    """
    session = runtime.session(model, threads=1)  # the pool below is the parallelism
    rows = list(predictions.select("image_id", "path", "predicted", "probabilities").iter_rows())

    def answer(file: Path, image_id: str) -> tuple[np.ndarray, int]:
        rgb = decoding.decode(decoding.read_unchanged(file, image_id), facts.bits).rgb
        probabilities, label_index = session.run(["probabilities", "label_index"], {"image": rgb[None]})
        advance(1)
        return probabilities[0], int(label_index[0])

    other_labels, apart, furthest = [], [], 0.0
    with ThreadPoolExecutor(n_cores()) as pool:
        answers = pool.map(answer, files, [row[0] for row in rows])
        for (probabilities, index), (_, path, predicted, expected) in zip(answers, rows, strict=True):
            difference = float(np.abs(probabilities - np.asarray(expected, np.float32)).max())
            furthest = max(furthest, difference)
            margin = max(expected) - expected[index]
            if facts.classes[index] != predicted and (tolerance == TOLERANCES["float32"] or margin > 2 * tolerance):
                other_labels.append(path)
            if not difference <= tolerance:
                apart.append(path)
    if other_labels or apart:
        raise CheckError(
            f"model.onnx gives another label than evaluate on {len(other_labels)} and other probabilities on"
            f" {len(apart)} of the {len(files)} test images it was run on ({count_and_name(other_labels or apart)}), by"
            f" up to {furthest:.1e}. The same labels and at most {tolerance:.0e} were expected. Run `dvc repro --force"
            " backbone`; please report this if it happens again."
        )


def write_images(
    model: bytes, predictions: pl.DataFrame, facts: Facts, source: Path, n_images: int, folder: Path
) -> list[Vector]:
    """Copy some test images from `source` to `folder`, and add odd ones made from the most confident one.

    Return the model's answer for each.
    """
    target = folder / CONFORMANCE
    target.mkdir()
    vectors = []
    for row in spread_rows(predictions, n_images).iter_rows(named=True):
        name = row["image_id"][:16] + PurePosixPath(row["path"]).suffix.lower()
        (target / name).write_bytes(located(row["path"], source).read_bytes())
        vectors.append(Vector(file=name, label=row["predicted"], probabilities=row["probabilities"]))
    return vectors + _odd_vectors(model, facts, target, vectors[-1].file) if vectors else []


def expected(tolerance: float, vectors: list[Vector]) -> Expected:
    """Return the record of the conformance images."""
    return Expected(tolerance=tolerance, images=vectors)


def spread_rows(predictions: pl.DataFrame, n_images: int) -> pl.DataFrame:
    """Return up to `n_images` rows, evenly spaced from the least to the most confident prediction."""
    ordered = predictions.sort("probability", "image_id")
    picks = np.unique(np.linspace(0, len(ordered) - 1, min(n_images, len(ordered))).round().astype(int))
    return ordered[picks]


def odd_images(rgb: np.ndarray) -> dict[str, bytes]:
    """Return image files that a careless decoder gets wrong, made from one picture uint8 [H, W, 3]: name -> bytes."""
    picture = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[_ORIENTATION] = 6  # to be shown rotated by 90 degrees
    return {
        "gray.jpg": _encoded(picture.convert("L"), "JPEG"),
        "turned.jpg": _encoded(picture, "JPEG", exif=turned),
        "transparent.png": _encoded(Image.merge("RGBA", (*picture.split(), picture.convert("L"))), "PNG"),
        "tiny.png": _encoded(picture.resize((7, 5)), "PNG"),
        "huge.jpg": _encoded(picture.resize((4000, 3000)), "JPEG", quality=50),
        "wide.png": _encoded(picture.resize((900, 12)), "PNG"),
    }


def _odd_vectors(model: bytes, facts: Facts, folder: Path, surest: str) -> list[Vector]:
    session = runtime.session(model)
    vectors = []
    for name, data in odd_images(decoding.decode((folder / surest).read_bytes(), facts.bits).rgb).items():
        (folder / name).write_bytes(data)
        found = session.run(["probabilities"], {"image": decoding.decode(data).rgb[None]})[0][0]
        probabilities = [float(value) for value in found]
        vectors.append(Vector(file=name, label=facts.classes[int(found.argmax())], probabilities=probabilities))
    return vectors


def _encoded(picture: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()
