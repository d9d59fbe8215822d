"""Decodes an image file to upright sRGB uint8, or gives the reason why not."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from headstart.base.errors import ChangedError, UnreachableError
from headstart.images import colour, deep
from headstart.images.deep import ALL_BITS, LEAST_BITS
from headstart.images.formats import FORMATS, OutOfMemoryError, UnreadableError
from headstart.images.headers import Header, examined

try:
    import simplejpeg
except ImportError:  # a deployment may lack it; Pillow gives the same bytes
    simplejpeg = None

MAX_PIXELS = 178_956_970  # Pillow's own limit: half a gigabyte of RGB

# The version of `decode`, part of the fingerprint of stores. Change it when `decode` gives other pixels; a test detects
# that. The first version was the digest of a file, under which the first stores were built.
VERSION = "2"

_ORIENTATION, _UPRIGHT, _ORIENTATIONS = 0x0112, 1, range(1, 9)  # EXIF
_JPEG_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # simplejpeg's names for Pillow's modes
_UNASSOCIATED = {"La": "LA", "RGBa": "RGBA"}  # modes of colours that are multiplied by their opacity
_BAND_PX = 4_000_000  # a larger image becomes RGB in bands, so that no second one of its size lies in memory

# What libjpeg says where a part of the picture is lost. It also objects to harmless things, such as odd metadata.
_LOST = re.compile(
    r"premature end|bad Huffman code|instead of RST|(?P<n_bytes>\d+) extraneous bytes before marker 0x(c4|d[0-79a])",
    re.IGNORECASE,
)
_FEW_BYTES = 2  # that some encoders leave behind a picture


class Decoded(NamedTuple):
    """An upright image."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    format: str
    bits: int | None = None  # of a file with 16 bits a channel: how many its values use, 8..16
    damage: str | None = None  # what libjpeg objects to in a JPEG, of which a part may be grey. Needs simplejpeg


def decoder(bits: int = ALL_BITS) -> str:
    """Return what identifies the output of `decode` here: its version, those of its libraries, and `bits`."""
    jpeg = simplejpeg.__version__ if simplejpeg else "none"
    scaled = "" if bits == ALL_BITS else f" of {bits} bits"
    return f"{VERSION} pillow {PIL.__version__} simplejpeg {jpeg}{scaled}"


def read_unchanged(path: Path, image_id: str) -> bytes:
    """Return the bytes of an image file; ChangedError if it is missing or its SHA-256 is no longer `image_id`.

    UnreachableError if its URL does not answer.
    """
    try:
        data = path.read_bytes()
    except Exception as error:  # OSError, or whatever the file system of a URL raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        where: object = path  # a Path, or a URL that behaves like one
        lasts = isinstance(where, Path) or isinstance(error, FileNotFoundError)
        kind = ChangedError if lasts else UnreachableError
        raise kind(
            f"{path} cannot be read ({said}), but the manifest lists it. Run `headstart run`, which looks at all files"
            " again, or `dvc repro --force validate`."
        ) from None
    if hashlib.sha256(data).hexdigest() != image_id:
        raise ChangedError(
            f"{path} has changed since `validate` read it. The bytes that the manifest lists were expected."
            " Run `headstart run`, which looks at all files again, or `dvc repro --force validate`."
        )
    return data


def decode(data: bytes, bits: int = ALL_BITS, max_pixels: int = MAX_PIXELS, in_srgb: bool = True) -> Decoded:
    """Return the first frame, rotated as EXIF says, as sRGB uint8 [H, W, 3]; UnreadableError if that is impossible.

    Transparent pixels become white. 16 bits a channel are scaled to 8, not clipped: 2 ** `bits` - 1 becomes 255, and a
    larger value is an UnreadableError. `bits` has no effect on other files. A colour profile is applied, unless
    `in_srgb` is False because nobody looks at the pixels.

    `max_pixels` and more are refused by the header. What the header cannot tell is not bounded here: see `Reader`.
    """
    header = examined(data)
    header.check(max_pixels)
    with _opened(data, header) as image:
        Header(header.format, image.width, image.height, True).check(max_pixels)
        kind, damage = str(image.format), None
        profile = image.info.get("icc_profile") if in_srgb else None
        if header.format == "JPEG":
            values, damage = _by_simplejpeg(image, data)
            if values is not None:
                return Decoded(colour.managed(_turned(values, image), profile), kind, None, damage)
        is_deep = deep.has_deep_colours(image)
        image.load()
        used = None
        if is_deep:
            used = max(LEAST_BITS, 8 + deep.n_bits(np.asarray(image)[..., :3]))  # Pillow keeps the higher bytes
        if is_deep and (bits < ALL_BITS or "transparency" in image.info):
            rgb = deep.colours(data, bits)
        else:
            rgb, grey_bits = _to_rgb(image, bits)
            used = used or grey_bits
        return Decoded(colour.managed(_turned(rgb, image), profile), kind, used, damage)


def from_pillow(image: Image.Image, bits: int = ALL_BITS) -> np.ndarray:
    """Return an opened Pillow image as `decode` would: upright, sRGB, uint8 [H, W, 3]; UnreadableError too."""
    with _told():
        if not image.width * image.height:
            raise UnreadableError(f"{image.width} x {image.height} pixels")
        if deep.has_deep_colours(image) and (bits < ALL_BITS or "transparency" in image.info):
            raise UnreadableError("colours of 16 bits, of which Pillow keeps the higher 8; pass the path or the bytes")
        image.load()
        return colour.managed(_turned(_to_rgb(image, bits)[0], image), image.info.get("icc_profile"))


@contextmanager
def _opened(data: bytes, header: Header) -> Iterator[Image.Image]:
    """Yield an image whose header alone has been read; whatever is raised with it becomes UnreadableError."""
    with _told(header.format), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def _told(kind: str = "image") -> Iterator[None]:
    """Turn what a decoder raises into UnreadableError."""
    try:
        yield
    except UnreadableError:
        raise
    except MemoryError:
        raise OutOfMemoryError("it takes more memory than there is, or than its pixels account for") from None
    except UnidentifiedImageError:
        raise UnreadableError(f"a {kind} that is broken or of a rare form; save it as 8-bit RGB") from None
    except Exception as error:  # a decoder may raise almost anything for broken bytes
        said = " ".join(str(error).split())
        raise UnreadableError(f"cannot be decoded: {said or type(error).__name__}"[:200]) from None


def _by_simplejpeg(image: Image.Image, data: bytes) -> tuple[np.ndarray | None, str | None]:
    """Return a grey or colour JPEG decoded by libjpeg-turbo, not turned, uint8 [H, W, 3], and its damage.

    The first is None if Pillow must decode it, and decide whether the file is usable. The bytes are the same as
    Pillow's, in 0.7 to 0.85 of the time (benchmarks/decode.py).
    """
    space = _JPEG_SPACES.get(image.mode)
    if simplejpeg is None or space is None:
        return None, None
    try:
        values: np.ndarray = simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    except Exception as error:
        return None, _damage(str(error), data)
    if space == "CMYK" or values.shape[:2] != (image.height, image.width):
        return None, None
    return (np.repeat(values, 3, axis=2) if space == "GRAY" else values), None


def _damage(said: str, data: bytes) -> str | None:
    """Return what an objection says, if a part of the picture is lost."""
    lost = _LOST.search(said)
    if lost and lost["n_bytes"] and lost[2] == "d9":  # the end: many cameras pad what lies before it
        n_bytes, end = int(lost["n_bytes"]), data.rfind(b"\xff\xd9")
        if n_bytes <= _FEW_BYTES or len(set(data[end - n_bytes : end])) == 1:
            return None
    return said.removeprefix("Corrupt JPEG data: ").rstrip(".") if lost else None


def _orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF or XMP gives, 1..8; upright where they are broken."""
    try:
        found = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # no rotation, but the pixels are sound
        return _UPRIGHT
    return found if found in _ORIENTATIONS else _UPRIGHT


def _turned(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return uint8 [H, W, 3] upright, where `image` says how it has to be turned."""
    orientation = _orientation(image)
    if orientation == _UPRIGHT:
        return values
    swapped = values.transpose(1, 0, 2) if orientation >= 5 else values
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(swapped[rows, columns])


def _to_rgb(image: Image.Image, bits: int) -> tuple[np.ndarray, int | None]:
    """Return uint8 [H, W, 3] of a loaded image and, of 16-bit grey, how many bits the values use."""
    if deep.is_grey(image):
        return deep.grey(image, bits)
    if image.mode in ("I", "F"):
        raise UnreadableError(deep.unknown_range(image))
    if image.mode == "RGB" and "transparency" not in image.info:
        return _in_bands(image, np.asarray), None
    image = image.convert(_UNASSOCIATED[image.mode]) if image.mode in _UNASSOCIATED else image
    if image.has_transparency_data:
        return _in_bands(image, lambda part: deep.on_white(part.convert("RGBA"))), None
    if image.mode == "CMYK" and (transform := colour.transform_of(image.info.get("icc_profile"), "CMYK")):
        return _in_bands(image, lambda part: np.asarray(transform.apply(part))), None
    return _in_bands(image, lambda part: np.asarray(part.convert("RGB"))), None


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Return uint8 [H, W, 3], converted a band of rows at a time."""
    width_px, height_px = image.size
    if width_px * height_px <= _BAND_PX:
        return convert(image)
    rgb = np.empty((height_px, width_px, 3), np.uint8)
    rows = max(1, _BAND_PX // width_px)
    for top in range(0, height_px, rows):
        bottom = min(top + rows, height_px)
        rgb[top:bottom] = convert(image.crop((0, top, width_px, bottom)))
    return rgb
