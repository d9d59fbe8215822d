"""`headstart predict | verify | sign | info | page`: what is done with a finished model. `serve` is headstart/serving/.

It imports only onnxruntime, Pillow and numpy, and nothing of the pipeline; signatures need model-signing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from headstart.base.errors import CheckError, printable
from headstart.base.files import guarded
from headstart.base.terminal import styled
from headstart.handover import asked, integrity, runtimes
from headstart.handover.asked import Told
from headstart.handover.model import NOVEL_ABOVE, Answer, Model
from headstart.handover.verify import verify

BAD_IMAGES = 2  # exit status if some images could not be read and the others were answered


class Named(NamedTuple):
    """The path of an image, and the model's answer."""

    path: str
    answer: Answer


def predict(arguments: argparse.Namespace) -> int:
    """Print the most probable classes of each image; unreadable images are reported on stderr and skipped."""
    for stream in (sys.stdin, sys.stdout):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    model = Model(arguments.model)
    if arguments.set and model.set_coverage is None:
        raise CheckError(
            f"{model.file} has no label sets: its metadata lack `label_sets`. A model exported by a headstart that has"
            " evaluate.coverage was expected. Export it again, or leave --set out."
        )
    paths = asked.named(arguments.images, "predict")
    write = {"table": _table, "json": _json_lines, "csv": _csv}["json" if arguments.json else arguments.format]
    n_bad = 0
    printer = write(max(len(printable(path)) for path in paths), arguments.top, arguments.set)
    shows_progress = sys.stderr.isatty() and not sys.stdout.isatty() and len(paths) > 1
    with asked.asking(model, arguments) as asking, _progress(len(paths)) if shows_progress else nullcontext() as show:
        for n_done, told in enumerate(asking(paths), 1):
            if isinstance(told, Told):
                printer(Named(told.path, model.answers(told.outputs, arguments.top)[0]))
            else:
                n_bad += 1
                begin = "\r\x1b[2K" if show else ""  # wipes the line of progress
                print(f"{begin}predict: {told} An image was expected.", file=sys.stderr)
            if show and (n_done % arguments.batch == 0 or n_done == len(paths)):
                show(n_done)
    return BAD_IMAGES if n_bad else 0


@contextmanager
def _progress(n_images: int) -> Iterator[Callable[[int], None]]:
    """Yield `show(n_done)`, which writes over the line that it wrote before."""
    began = time.monotonic()

    def show(n_done: int) -> None:
        rate = n_done / (time.monotonic() - began)
        print(f"\rpredict: {n_done}/{n_images} images, {rate:.0f} per second", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print(file=sys.stderr)


def _table(width: int, top: int, with_set: bool) -> Callable[[Named], None]:
    def write(named: Named) -> None:
        path, answer = printable(named.path), named.answer
        (label, probability), *others = ((printable(label), f"{value:.4f}") for label, value in answer.ranked)
        words = [f"{path:<{width}}", f"{styled(label, 'strong', sys.stdout)} {probability}"]
        words += [f"{label} {probability}" for label, probability in others]
        if with_set:
            words.append("{" + ", ".join(map(printable, answer.label_set or ())) + "}")
        if answer.abstains:
            words.append(styled("abstains", "warning", sys.stdout))
        if answer.novelty is not None and answer.novelty > NOVEL_ABOVE:
            words.append(styled(f"novelty {answer.novelty:.3f}", "warning", sys.stdout))
        print("  ".join(words))

    return write


def _json_lines(width: int, top: int, with_set: bool) -> Callable[[Named], None]:
    def write(named: Named) -> None:
        path, answer = named
        ranked = [{"label": name, "probability": value} for name, value in answer.ranked]
        line = {"path": path, "label": answer.label, "probability": answer.probability, "top": ranked}
        line |= {"abstains": answer.abstains, "novelty": answer.novelty}
        if with_set:
            line["label_set"] = answer.label_set
        print(json.dumps(line, ensure_ascii=not _is_text(path)))

    return write


def _is_text(name: str) -> bool:
    """Return whether a name is UTF-8; its other bytes are surrogates, which JSON has to escape."""
    return not any("\ud800" <= each <= "\udfff" for each in name)


def _csv(width: int, top: int, with_set: bool) -> Callable[[Named], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = [""] if top == 1 else [f"_{rank + 1}" for rank in range(top)]
    names = [f"{name}{rank}" for rank in ranks for name in ("label", "probability")]
    writer.writerow(["path", *names, "abstains", "novelty", *(["label_set"] if with_set else [])])

    def write(named: Named) -> None:
        values = [value for each in named.answer.ranked for value in each]
        values += [""] * (len(names) - len(values))  # the model has fewer classes than `top`
        values = [guarded(value) if isinstance(value, str) else value for value in values]
        labels = [guarded("|".join(named.answer.label_set or ()))] if with_set else []
        writer.writerow(
            [guarded(named.path), *values, str(named.answer.abstains).lower(), named.answer.novelty, *labels]
        )

    return write


def info(arguments: argparse.Namespace) -> int:
    """Print the model's metadata."""
    model = Model(arguments.model)
    print(f"{'file':<22}{model.file}")
    for name, value in sorted(model.metadata.items()):
        print(f"{name:<22}{', '.join(model.classes) if name == 'classes' else value}")
    return 0


def page(arguments: argparse.Namespace) -> int:
    """Write a static site with the model (headstart/handover/page/)."""
    from headstart.handover.page import site

    return site.page(arguments)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands on a finished model to the parser of `headstart` (headstart/commands/main.py)."""
    command = commands.add_parser("predict", help="classify images")
    command.add_argument("model", type=Path, metavar="MODEL", help="artifacts/model, or a model.onnx")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, patterns; - reads a list on stdin")
    command.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="json: one object per line"
    )
    command.add_argument("--json", action="store_true", help="the same as --format json")
    asked.add_limits(command)
    command.add_argument("--top", type=asked.positive, default=1, metavar="K", help="the K most probable classes")
    command.add_argument(
        "--set", action="store_true", help="the labels among which the true one is as often as evaluate.coverage says"
    )
    command.set_defaults(run=predict)

    command = commands.add_parser("verify", help="compare checksums and replay the conformance images on this machine")
    command.add_argument("model", type=Path, metavar="MODEL")
    several = "replay them in this one: may be given several times (default: onnxruntime)"
    command.add_argument("--runtime", action="append", choices=runtimes.NAMES, help=several)
    command.add_argument(
        "--signature", nargs="?", const="", metavar="FILE", help="verify it first (default: MODEL.sig beside MODEL)"
    )
    command.add_argument("--key", type=Path, metavar="PUBLIC_KEY", help="of whoever signed the model, as PEM")
    command.set_defaults(run=verify)

    integrity.add_sign(commands)

    command = commands.add_parser("info", help="print classes, backbone, preprocessing, digests, versions")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.set_defaults(run=info)
    command = commands.add_parser("page", help="write a static site that runs the model in the visitor's browser")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder, or an earlier site")
    command.add_argument(
        "--webgpu", action="store_true", help="let it use the visitor's graphics processor; 27 MB more in the site"
    )
    command.add_argument(
        "--no-conformance",
        dest="conformance",
        action="store_false",
        help="leave out the conformance images, and with them the check of the browser",
    )
    command.add_argument(
        "--onnxruntime-web", type=Path, metavar="FILE", help="its archive, where npm cannot fetch it from here"
    )
    command.set_defaults(run=page)
