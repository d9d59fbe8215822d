"""`headstart predict | verify | info`: for those who deploy a finished model.

onnxruntime, Pillow and numpy only, and nothing of the pipeline.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import CheckError, HeadstartError, count_and_name
from headstart.graphs import session
from headstart.images import UnreadableError, decode

BAD_IMAGES = 2  # exit status where some images could not be read and the rest was answered


class Model:
    """A finished model, with what it says of itself."""

    def __init__(self, path: Path) -> None:
        """Load `path`, a model.onnx or the folder that holds it; CheckError if it is no model of headstart's."""
        self.file = _file_of(path)
        self._session = session(self.file)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        try:
            self.classes: list[str] = json.loads(self.metadata["classes"])
        except (KeyError, ValueError):
            raise CheckError(f"{self.file} names no classes. A model exported by headstart was expected.") from None

    def probabilities(self, data: bytes) -> np.ndarray:
        """Return float32 [C] for the bytes of one image file; UnreadableError if they are none."""
        found: np.ndarray = self._session.run(["probabilities"], {"image": decode(data).rgb[None]})[0][0]
        return found


def predict(arguments: argparse.Namespace) -> int:
    """Print the most probable classes of each image; an unreadable one is told on stderr and the rest goes on."""
    model = Model(arguments.model)
    status = 0
    width = max(len(str(path)) for path in arguments.images)
    for path in arguments.images:
        try:
            probabilities = model.probabilities(path.read_bytes())
        except (UnreadableError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"predict: {path}: {reason}. An image was expected.", file=sys.stderr)
            status = BAD_IMAGES
            continue
        best = np.argsort(-probabilities, kind="stable")[: arguments.top]
        ranked = [(model.classes[index], float(probabilities[index])) for index in best]
        if arguments.json:
            answer = {
                "path": str(path),
                "label": ranked[0][0],
                "probability": ranked[0][1],
                "top": [{"label": label, "probability": probability} for label, probability in ranked],
            }
            print(json.dumps(answer, ensure_ascii=False))
        else:
            print(f"{path!s:<{width}}  " + "  ".join(f"{label} {probability:.4f}" for label, probability in ranked))
    return status


def verify(arguments: argparse.Namespace) -> int:
    """Replay the conformance vectors; CheckError where this machine's answers differ from those of the export."""
    file = _file_of(arguments.model)
    folder = file.parent
    promised = _read_json(folder / "model.json")["model_sha256"]
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != promised:
        raise CheckError(
            f"{file} has SHA-256 {found[:12]}.. and model.json promises {promised[:12]}... The file that was"
            " exported was expected. Copy the whole folder again."
        )
    expected = _read_json(folder / "conformance" / "expected.json")
    model = Model(file)
    wrong, furthest = [], 0.0
    for vector in expected["images"]:
        image = folder / "conformance" / vector["file"]
        try:
            probabilities = model.probabilities(image.read_bytes())
        except (UnreadableError, OSError) as error:
            raise CheckError(f"{image} cannot be read ({error}). Copy the whole folder again.") from None
        difference = float(np.abs(probabilities - np.asarray(vector["probabilities"], np.float32)).max())
        furthest = max(furthest, difference)
        if not difference <= expected["tolerance"] or model.classes[int(probabilities.argmax())] != vector["label"]:
            wrong.append(vector["file"])
    n_images = len(expected["images"])
    if wrong:
        raise CheckError(
            f"{len(wrong)} of {n_images} conformance images differ ({count_and_name(wrong)}), by up to {furthest:.1e}."
            f" At most {expected['tolerance']:.0e} was expected. Compare the versions of onnxruntime and Pillow here"
            " with those that `headstart info` names."
        )
    print(f"verify: {n_images} conformance images agree to {furthest:.1e}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Print what the model says of itself."""
    model = Model(arguments.model)
    print(f"{'file':<22}{model.file}")
    for name, value in sorted(model.metadata.items()):
        print(f"{name:<22}{', '.join(model.classes) if name == 'classes' else value}")
    return 0


def _file_of(path: Path) -> Path:
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        raise CheckError(f"{file} does not exist. A model.onnx, or a folder with one, was expected.")
    return file


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckError(f"{path} cannot be read ({error}). The folder that `export` wrote was expected.") from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headstart", description="Run, verify or describe a finished model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("predict", help="name the class of images")
    command.add_argument("model", type=Path, metavar="MODEL", help="artifacts/model, or a model.onnx")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.add_argument("--top", type=_positive, default=1, metavar="K", help="the K most probable classes")
    command.set_defaults(run=predict)

    command = commands.add_parser("verify", help="replay the conformance vectors on this machine")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.set_defaults(run=verify)

    command = commands.add_parser("info", help="classes, backbone, preprocessing, digests, versions")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.set_defaults(run=info)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for an error that is told in one line, 2 for bad images or a wrong command line."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    try:
        return int(options.run(options))
    except HeadstartError as error:
        print(f"{options.run.__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
