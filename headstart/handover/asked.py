"""The images that a command line names, read within limits, and what a model says to each."""

from __future__ import annotations

import argparse
import glob
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, count_and_name, printable
from headstart.base.reading import NotReadError, exists, is_folder, of_file
from headstart.handover.model import Model
from headstart.image_files import below, no_image
from headstart.images.formats import EXTENSIONS, UnreadableError
from headstart.images.headers import examined
from headstart.images.limited import Limits, Reader

_MAX_MB = 1000
_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


class Told(NamedTuple):
    """The path of an image, a digest of its bytes, and the model's outputs, each with one row."""

    path: str
    digest: bytes
    outputs: dict[str, np.ndarray]


class _Read(NamedTuple):
    digest: bytes
    rgb: np.ndarray  # uint8 [H, W, 3]


@dataclass(frozen=True)
class Asking:
    """Images are read within limits, `batch` at a time, and those of one size go through the model together."""

    model: Model
    reader: Reader
    pool: ThreadPoolExecutor
    max_mb: int
    batch: int

    def __call__(self, paths: Sequence[str]) -> Iterator[Told | str]:
        """Yield what the model says to each image, in order, or why it cannot be read."""
        for first in range(0, len(paths), self.batch):
            yield from self._chunk(paths[first : first + self.batch])

    def _chunk(self, paths: Sequence[str]) -> Iterator[Told | str]:
        most = self.reader.limits.max_pixels // self.batch
        found = list(self.pool.map(lambda path: self._read(path, most), paths))
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, each in enumerate(found):
            if isinstance(each, _Read):
                rows_of.setdefault(each.rgb.shape, []).append(row)
        said: dict[int, Told] = {}
        for rows in rows_of.values():
            together = [each for row in rows if isinstance(each := found[row], _Read)]
            outputs = self.model.outputs(np.stack([each.rgb for each in together]))
            for number, (row, each) in enumerate(zip(rows, together, strict=True)):
                one = {name: array[number : number + 1] for name, array in outputs.items()}
                said[row] = Told(paths[row], each.digest, one)
        for row, each in enumerate(found):
            if row in said:
                yield said[row]
                continue
            large = self._read(paths[row], self.reader.limits.max_pixels) if each is None else each
            if isinstance(large, _Read):
                yield Told(paths[row], large.digest, self.model.outputs(large.rgb[None]))
            else:
                yield str(large)

    def _read(self, path: str, most: int) -> _Read | str | None:
        """Return an image, an error message, or None if it has more than `most` pixels and is to be read alone."""
        try:
            is_pipe = path.startswith(_PIPES)  # that the shell has made, as in <(command)
            n_bytes = self.max_mb * 1_000_000
            data = Path(path).read_bytes() if is_pipe else of_file(Path(path), n_bytes, ", which --max-mb allows")
            header = examined(data)
            header.check(self.reader.limits.max_pixels)
            if header.n_pixels > most and not is_pipe:
                return None
            with self.reader.decoded(data, self.model.bits) as image:
                return _Read(hashlib.sha256(data).digest(), image.rgb)
        except (UnreadableError, NotReadError, OSError, ValueError) as error:  # ValueError: a NUL in the name
            said = error.strerror if isinstance(error, OSError) else error
            return f"{printable(path)}: {said}."


@contextmanager
def asking(model: Model, arguments: argparse.Namespace) -> Iterator[Asking]:
    """Yield what asks the model, with the limits of `add_limits`."""
    with Reader(Limits(arguments.max_pixels, arguments.max_seconds)) as reader, ThreadPoolExecutor(n_cores()) as pool:
        yield Asking(model, reader, pool, arguments.max_mb, arguments.batch)


def named(words: Iterable[str], command: str) -> list[str]:
    """Return the path of each image that `words` name: files, folders, patterns, or - for one path per line on stdin.

    CheckError if there is none. What is skipped in a folder is told on stderr behind `command`.
    """
    paths = list(_named(words, command))
    if not paths:
        raise CheckError("no image was found. Files, folders, patterns, or - for a list on stdin were expected.")
    return paths


def _named(words: Iterable[str], command: str) -> Iterator[str]:
    for word in words:
        path = Path(word)
        if word == "-":
            lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in sys.stdin)
            yield from (line for line in lines if line.strip())
        elif is_folder(path):
            yield from _in_folder(path, command)
        elif not exists(path) and glob.has_magic(word):
            found = glob.glob(word, recursive=True)  # noqa: PTH207 pathlib's glob takes no absolute pattern
            yield from sorted(each for each in found if Path(each).is_file())
        else:
            yield word


def _in_folder(folder: Path, command: str) -> Iterator[str]:
    """Yield the images below a folder as training lists them, also those that turn out to be none; tell the others."""
    there = below(folder, follows_out=True)
    names = [*there.files, *(each.path for each in there.special)]
    chosen = sorted(name for name in names if name.lower().endswith(EXTENSIONS) and not no_image(name))
    _tell_skipped(command, folder, sorted({*names} - {*chosen}))
    yield from (str(folder / name) for name in chosen)


def _tell_skipped(command: str, folder: Path, others: Sequence[str]) -> None:
    if others:
        names = count_and_name(others)
        files = "file that is no image is" if len(others) == 1 else "files that are no images are"
        print(f"{command}: {len(others)} {files} skipped in {folder}: {names}", file=sys.stderr)


def add_limits(command: argparse.ArgumentParser) -> None:
    """Add the options of reading to a parser."""
    usual = Limits()
    add = command.add_argument
    add("--batch", type=positive, default=8, metavar="N", help="images read at a time (default: 8)")
    limit = f"most pixels of an image, by its header (default: {usual.max_pixels})"
    add("--max-pixels", type=positive, default=usual.max_pixels, metavar="N", help=limit)
    limit = f"of processor time, to decode an image (default: {usual.max_seconds})"
    add("--max-seconds", type=positive, default=usual.max_seconds, metavar="S", help=limit)
    limit = f"largest image file (default: {_MAX_MB})"
    add("--max-mb", type=positive, default=_MAX_MB, metavar="MB", help=limit)


def positive(text: str) -> int:
    """Return a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value
