"""`headstart verify`: is this the folder that was exported, and does a runtime of this machine answer alike?"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.base.errors import CheckError, count_and_name
from headstart.base.reading import NotReadError, of_file
from headstart.handover import runtimes
from headstart.handover.integrity import check_signature, check_sums
from headstart.handover.model import Model, file_of
from headstart.images.formats import UnreadableError
from headstart.onnx.model_folder import CONFORMANCE, EXPECTED, RECORD, SUMS

# Of a probability, in a runtime that is not onnxruntime: sums of float32 in another order.
ELSEWHERE = 1e-3
LOOSEST = 0.05  # that `export` writes: for features in bfloat16
_MOST_BYTES = 1 << 30  # of a file of the folder that is read into memory
_SOON_S = 5.0  # an image that took less is run a second time, and the second time counts


class Replay(NamedTuple):
    """How a runtime answered the conformance images."""

    furthest: float  # the largest difference of a probability
    apart: list[str]  # files with a difference above the tolerance
    other_labels: list[str]  # files with another label
    image_ms: float  # median over the images


def verify(arguments: argparse.Namespace) -> int:
    """Compare signature and checksums, replay the conformance images; CheckError if a file or an answer differs."""
    file = file_of(arguments.model)
    folder = file.parent
    if arguments.signature is not None or arguments.key:
        check_signature(folder, arguments.signature, arguments.key)
    listed = check_sums(folder)
    model = Model(file)
    expected = _answers(folder / CONFORMANCE / EXPECTED, model.classes, set(listed))
    chosen = list(dict.fromkeys(arguments.runtime or [runtimes.DEFAULT]))
    _check_record(folder / RECORD, model)
    print(f"verify: {len(listed)} files match {SUMS}")
    failures = []
    for name in chosen:
        try:
            _verify_in(runtimes.opened(name, file), model, folder, expected)
        except CheckError as error:
            if len(chosen) == 1:
                raise
            failures.append(str(error))
            print(f"verify: {name} FAILS")
    if failures:
        raise CheckError("\n".join(failures))
    return 0


def _verify_in(runtime: runtimes.Runtime, model: Model, folder: Path, expected: Any) -> None:
    """Print what a runtime answered; CheckError if it differs."""
    is_default = runtime.name == runtimes.DEFAULT
    tolerance = expected["tolerance"] if is_default else max(expected["tolerance"], ELSEWHERE)
    opset = read_json(folder / RECORD).get("opset")
    found = replay(runtime, model, folder, expected["images"], tolerance)
    n_images, wrong = len(expected["images"]), sorted({*found.apart, *found.other_labels})
    if wrong:
        labels = f"{len(found.other_labels)} with another label" if found.other_labels else "with the same labels"
        what_to_do = (
            "Compare the versions of onnxruntime and Pillow here with those that `headstart info` prints."
            if is_default
            else "Do not use the model in it; onnxruntime is what it was checked in."
        )
        raise CheckError(
            f"{len(wrong)} of {n_images} conformance images differ in {runtime.name} {runtime.version}"
            f" ({count_and_name(wrong)}), by up to {found.furthest:.1e}, {labels}. At most {tolerance:.0e} was"
            f" expected. {what_to_do}"
        )
    print(f"verify: {runtime.name} {runtime.version} supports every operator of the model, opset {opset}")
    agree = f"agree to {found.furthest:.1e}" if found.furthest else "agree exactly"
    print(f"verify: {n_images} conformance images {agree}, same labels, {found.image_ms:.3g} ms an image")


def replay(runtime: runtimes.Runtime, model: Model, folder: Path, vectors: Any, tolerance: float) -> Replay:
    """Run the conformance images of a model folder, one at a time; CheckError if one cannot be read, or run.

    `vectors`: the images of conformance/expected.json.
    """
    apart, other_labels, times_s, furthest = [], [], [], 0.0
    for vector in vectors:
        pixels = _pixels(model, folder / CONFORMANCE / vector["file"])[None]
        try:
            began = time.perf_counter()
            probabilities = runtime.run(pixels)[0]
            if time.perf_counter() - began < _SOON_S:
                began = time.perf_counter()
                runtime.run(pixels)
        except Exception as error:  # each runtime has exceptions of its own
            said = " ".join(str(error).split())[:300]
            raise CheckError(
                f"{runtime.name} {runtime.version} cannot run {vector['file']}: {said or type(error).__name__}."
                " Probabilities were expected. Do not use the model in it."
            ) from None
        times_s.append(time.perf_counter() - began)
        difference = float(np.abs(probabilities - np.asarray(vector["probabilities"], np.float32)).max())
        furthest = max(furthest, difference)
        if not difference <= tolerance:
            apart.append(vector["file"])
        if model.classes[int(probabilities.argmax())] != vector["label"]:
            other_labels.append(vector["file"])
    return Replay(furthest, apart, other_labels, 1e3 * statistics.median(times_s))


def _pixels(model: Model, file: Path) -> np.ndarray:
    """Return uint8 [H, W, 3]."""
    try:
        return model.decode(of_file(file, _MOST_BYTES))
    except (UnreadableError, NotReadError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise CheckError(f"{file}: {said}. An image was expected. Copy the whole folder again.") from None


def _check_record(file: Path, model: Model) -> None:
    """CheckError if model.json has other classes; programs that do not read ONNX's metadata read them there."""
    record = read_json(file)
    if not isinstance(record, dict) or record.get("classes") != model.classes:
        raise CheckError(
            f"{file} has other classes than model.onnx. The files of one export were expected. Copy the whole folder"
            " again."
        )


def _answers(file: Path, classes: Sequence[str], listed: set[str]) -> Any:
    """Return the images with their answers and the tolerance; CheckError if they could not tell a wrong model.

    That takes one image or more, whose checksums are listed, a probability for each class, and a small tolerance.
    """
    expected = read_json(file)
    try:
        images, tolerance = expected["images"], float(expected["tolerance"])
        is_sane = 0 < tolerance <= LOOSEST and len(images) > 0
        for image in images:
            probabilities = np.asarray(image["probabilities"], np.float64)
            is_sane &= probabilities.shape == (len(classes),) and bool(np.isfinite(probabilities).all())
            is_sane &= image["label"] in classes and f"{CONFORMANCE}/{image['file']}" in listed
    except (KeyError, TypeError, ValueError, OverflowError):
        is_sane = False
    if not is_sane:
        raise CheckError(
            f"{file} cannot show that a model is right. Images that {SUMS} lists, with a probability for each of the"
            f" {len(classes)} classes of model.onnx, and a tolerance of at most {LOOSEST} were expected. Copy the whole"
            " folder again."
        )
    return expected


def read_json(path: Path) -> Any:
    """Return what a JSON file of the model folder holds; CheckError if there is none."""
    try:
        return json.loads(of_file(path, _MOST_BYTES))
    except (NotReadError, OSError, ValueError, RecursionError) as error:
        raise CheckError(f"{path} cannot be read ({error}). The folder that `export` wrote was expected.") from None
