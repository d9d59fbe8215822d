"""Decodes an image file to upright RGB uint8, or gives the reason why not. Training and deployment decode alike.

It imports only numpy, Pillow and, if installed, simplejpeg: the command line for deployment uses this module too.
"""

from __future__ import annotations

import hashlib
import io
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import (  # Pillow would load the decoders at first use, which is not safe in threads
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401 many phones write it as .jpg; the JPEG decoder passes it on
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from headstart.base.errors import DataError, UnreachableError, count_and_name

try:
    import simplejpeg
except ImportError:  # a deployment may lack it; Pillow gives the same bytes
    simplejpeg = None

_DECODERS = (
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS = tuple(str(decoder.format) for decoder in _DECODERS)
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 178_956_970  # Pillow's own limit: half a gigabyte of RGB

# The version of `decode`, part of the fingerprint of stores. Change it when `decode` gives other pixels; a test detects
# that. The first version was the digest of this file, under which the first stores were built.
VERSION = "59fb9964abadd47be5e97c2f99baff9ef11646f08f773e9092663cab414c9166"

_BEGINS_SCAN, _USUAL_SCANS = b"\xff\xda", 20  # of a JPEG; encoders write one, or some ten if it is progressive
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF
_BACKGROUND = (255, 255, 255)  # shown behind transparent pixels

# Of files with 16 bits a channel: how many of them the values use. `LEAST_BITS` are those of an ordinary file.
LEAST_BITS, ALL_BITS = 8, 16

# Formats that people have and that are not read here, so that a message can name them.
_NOT_READ = {
    "HEIC": (".heic", ".heif", ".hif"),
    "AVIF": (".avif",),
    "DICOM": (".dcm", ".dicom"),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "camera raw": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    "Photoshop": (".psd",),
    "SVG": (".svg",),
}
_CONVERT = "which is not read; convert it to PNG or JPEG"
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC"}
_BRANDS |= {b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}  # of ISO media files: the four bytes after 'ftyp'
_BEGINS = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
}
_DICOM = slice(128, 132), b"DICM"
_SEPARABLE = {f"{channels};16{order}" for channels in ("RGB", "RGBA", "RGBX") for order in "LBN"}


class UnreadableError(Exception):
    """The bytes are not a usable image; the message is the reason, in a few words."""


class Decoded(NamedTuple):
    """An upright image."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    format: str
    bits: int | None = None  # of a file with 16 bits a channel: how many its values use, 8..16


def decoder(bits: int = ALL_BITS) -> str:
    """Return what identifies the output of `decode` here: its version, those of its libraries, and `bits`."""
    jpeg = simplejpeg.__version__ if simplejpeg else "none"
    scaled = "" if bits == ALL_BITS else f" of {bits} bits"
    return f"{VERSION} pillow {PIL.__version__} simplejpeg {jpeg}{scaled}"


def not_read(name: str) -> str | None:
    """Return why a file of this name is not read, if it ends like an image of a format that is known and not read."""
    for kind, extensions in _NOT_READ.items():
        if name.lower().endswith(extensions):
            return f"{kind}, {_CONVERT}"
    return None


def read_unchanged(path: Path, image_id: str) -> bytes:
    """Return the bytes of an image file; DataError if it is missing or its SHA-256 is no longer `image_id`.

    UnreachableError if its URL does not answer.
    """
    try:
        data = path.read_bytes()
    except Exception as error:  # OSError, or whatever the file system of a URL raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        where: object = path  # a Path, or a URL that behaves like one
        lasts = isinstance(where, Path) or isinstance(error, FileNotFoundError)
        kind = DataError if lasts else UnreachableError
        raise kind(f"{path} cannot be read ({said}), but the manifest lists it. Run `dvc repro`.") from None
    if hashlib.sha256(data).hexdigest() != image_id:
        raise DataError(
            f"{path} has changed since `validate` read it. The bytes that the manifest lists were expected."
            " Run `dvc repro --force validate`."
        )
    return data


def decode(data: bytes, bits: int = ALL_BITS) -> Decoded:
    """Return the first frame, rotated as EXIF says, as RGB uint8 [H, W, 3]; UnreadableError if that is impossible.

    Transparent pixels become white. 16 bits a channel are scaled to 8, not clipped: 2 ** `bits` - 1 becomes 255, and a
    larger value is an UnreadableError. `bits` has no effect on other files.
    """
    with _opened(data) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        rgb = _plain_jpeg(image, data)
        if rgb is not None:
            return Decoded(rgb, str(image.format))
        has_deep_colours = _has_deep_colours(image)
        image.load()
        if not has_deep_colours:
            rgb, used = _to_rgb(_upright(image), bits)
            return Decoded(rgb, str(image.format), used)
        used = max(LEAST_BITS, 8 + _n_bits(np.asarray(image)[..., :3]))  # Pillow keeps the higher byte of each value
        rgb = _deep_colours(data, bits) if bits < ALL_BITS else _to_rgb(_upright(image), bits)[0]
        return Decoded(rgb, str(image.format), used)


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height as the header of an image file tells them, before rotation; UnreadableError if none.

    A JPEG of many scans counts as higher than it is, for each scan takes the time of the whole picture.
    """
    with _opened(data) as image:
        scans = data.count(_BEGINS_SCAN) if image.format == "JPEG" else 1
        return image.width, image.height * max(1, math.ceil(scans / _USUAL_SCANS))


def _kind_not_read(data: bytes) -> str | None:
    """Return the name of a format that is not read, by the bytes that its files begin with."""
    where, mark = _DICOM
    if data[where] == mark:
        return "DICOM"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((kind for begin, kind in _BEGINS.items() if data.startswith(begin)), None)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Yield an image whose header alone has been read; whatever is raised with it becomes UnreadableError."""
    if not data:
        raise UnreadableError("empty file")
    if kind := _kind_not_read(data):
        raise UnreadableError(f"{kind}, {_CONVERT}")
    with _told(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a decoder raises into UnreadableError."""
    try:
        yield
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("not an image of a known format") from None
    except Exception as error:  # a decoder may raise almost anything for broken bytes
        said = " ".join(str(error).split())
        raise UnreadableError(f"cannot be decoded: {said or type(error).__name__}"[:200]) from None


def from_pillow(image: Image.Image, bits: int = ALL_BITS) -> np.ndarray:
    """Return an opened Pillow image as `decode` would return it: upright, RGB, uint8 [H, W, 3]; UnreadableError too."""
    with _told():
        if not image.width * image.height:
            raise UnreadableError(f"{image.width} x {image.height} pixels")
        if bits < ALL_BITS and _has_deep_colours(image):
            raise UnreadableError("colours of 16 bits, of which Pillow keeps the higher 8; pass the path or the bytes")
        image.load()
        return _to_rgb(_upright(image), bits)[0]


def _plain_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Return an upright colour JPEG decoded by libjpeg-turbo, without Pillow's buffers; None if Pillow must decode it.

    It gives the same bytes as Pillow in 0.7 to 0.85 of the time (benchmarks/decode.py).
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    try:
        if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            return None
        rgb: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except Exception:  # Pillow then decides whether the file is usable
        return None
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF gives no rotation, but the pixels are sound
        return image


def _to_rgb(image: Image.Image, bits: int) -> tuple[np.ndarray, int | None]:
    """Return uint8 [H, W, 3] and, of 16-bit grey, how many bits the values use."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image), None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        levels = np.asarray(image).astype(np.uint32)
        return np.repeat(_scaled(levels, bits)[..., None], 3, axis=2), max(LEAST_BITS, _n_bits(levels))
    if image.mode in ("I", "F"):
        raise UnreadableError("32 bits per channel, with an unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA")), None
    return np.asarray(image.convert("RGB")), None


def _on_white(image: Image.Image) -> np.ndarray:
    """Return uint8 [H, W, 3] of an image in RGBA."""
    white = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def _n_bits(levels: np.ndarray) -> int:
    return int(levels.max()).bit_length()


def _scaled(levels: np.ndarray, bits: int) -> np.ndarray:
    """Return uint8 for values of `bits` bits; UnreadableError where one is larger."""
    white, highest = 2**bits - 1, int(levels.max())
    if highest > white:
        raise UnreadableError(f"a value of {highest}, where at most {white} ({bits} bits) is expected")
    scaled: np.ndarray = ((levels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    return scaled


# Colours of 16 bits: Pillow reads the higher byte of each value alone. Where values use fewer bits, both are needed.


def _has_deep_colours(image: Image.Image) -> bool:
    """Return whether an image that was opened, and not yet loaded, has 16 bits a colour."""
    return image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", ()))


def _raw_mode(tile: Any) -> str:
    """Return how a file's bytes become values, such as 'RGB;16B'."""
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _deep_colours(data: bytes, bits: int) -> np.ndarray:
    """Return uint8 [H, W, 3] of a file whose values use `bits` of 16 bits; UnreadableError where its form is rare."""
    higher, lower = (_bytes_of_values(data, lower) for lower in (False, True))
    levels = higher[..., :3].astype(np.uint32) * 256 + lower[..., :3]
    rgb = _scaled(levels, bits)
    return rgb if higher.shape[2] == 3 else _on_white(Image.fromarray(np.dstack([rgb, higher[..., 3]])))


def _bytes_of_values(data: bytes, lower: bool) -> np.ndarray:
    """Return the higher or the lower byte of each value, uint8 [H, W, 3 or 4].

    Pillow takes the higher byte. Told that the bytes have the other order, it takes the lower one.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        modes = {_raw_mode(tile) for tile in image.tile}
        if not modes <= _SEPARABLE or "transparency" in image.info:
            raise UnreadableError(
                f"16 bits a channel in the form {count_and_name(sorted(modes))}, which is read only where all are used;"
                " save it as RGB or grey without transparency"
            )
        if lower:
            image.tile = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]
        image.load()
        return np.asarray(_upright(image))


def _swapped(args: Any) -> Any:
    """Return the arguments of a tile with the other order of bytes."""
    if not isinstance(args, str):
        return (_swapped(args[0]), *args[1:])
    order = args[-1] if args[-1] != "N" else sys.byteorder[0].upper()  # N is that of this machine
    return args[:-1] + ("L" if order == "B" else "B")
