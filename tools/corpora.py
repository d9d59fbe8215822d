"""Reads every file of a folder of odd images as `validate` does: `make corpora FOLDER=folder`.

Counts what is read and what is refused, by reason. Of what is read the pixels are Pillow's (turned by EXIF, converted
to RGB), or the file is listed with the reason for the difference. Exit status 1 if a difference has no reason.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from headstart.base.cores import n_cores
from headstart.base.reading import NotReadError, of_file
from headstart.images import colour, deep
from headstart.images.formats import FORMATS, UnreadableError
from headstart.images.limited import Limits, Reader

_MAX_BYTES = 10**9
UNEXPLAINED = "no reason is known"


class Outcome(NamedTuple):
    """What became of a file."""

    path: Path
    kind: str  # read | different | damaged | refused
    why: str


def outcome(reader: Reader, path: Path) -> Outcome:
    """Read one file."""
    try:
        data = of_file(path, _MAX_BYTES)
        with reader.decoded(data) as image:
            if image.damage:
                return Outcome(path, "damaged", re.sub(r"\d+|0x[0-9a-f]+", "N", image.damage))
            why = difference(data, image.rgb)
            return Outcome(path, "different" if why else "read", why or image.format)
    except (UnreadableError, NotReadError) as error:
        said = re.sub(r"[-\d.]*\d", "N", str(error).removeprefix("cannot be decoded: "))
        return Outcome(path, "refused", said[:80])


def difference(data: bytes, rgb: np.ndarray) -> str | None:
    """Return why the pixels are not those of Pillow; None where they are."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        reasons = list(reasons_of(image))
        image.load()
        try:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except Exception as error:
            return f"Pillow's own conversion fails ({type(error).__name__})"
    if expected.shape == rgb.shape and np.array_equal(expected, rgb):
        return None
    return "; ".join(reasons) or UNEXPLAINED


def reasons_of(image: Image.Image) -> Iterator[str]:
    """Yield what is done to an image on purpose, and not by Pillow's `convert`."""
    profile = image.info.get("icc_profile")
    if any(colour.transform_of(profile, mode) for mode in ("RGB", "L", "CMYK")):
        yield "its colour profile is applied"
    if image.has_transparency_data or image.mode in ("La", "RGBa"):
        yield "transparent pixels are white"
    if deep.is_grey(image) or deep.has_deep_colours(image):
        yield "more than 8 bits are scaled"


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description="read a folder of odd image files as `validate` does")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")  # of Pillow, about broken files
    every = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts):
        every.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    began = time.monotonic()
    with Reader(Limits()) as reader, ThreadPoolExecutor(n_cores()) as pool:
        found = list(pool.map(lambda path: outcome(reader, path), every.values()))
    print(f"{len(found)} different files in {time.monotonic() - began:.0f} s")
    for kind in ("read", "different", "damaged", "refused"):
        those = [each for each in found if each.kind == kind]
        print(f"{kind}: {len(those)}")
        for why, n_files in Counter(each.why for each in those).most_common():
            print(f"  {n_files:6}  {why}")
    unexplained = [each for each in found if each.why == UNEXPLAINED]
    for each in unexplained:
        print(f"unexplained: {each.path}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
