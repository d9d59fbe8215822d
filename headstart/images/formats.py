"""Which formats are read, which are known and not read, and the error for what cannot be used."""

from __future__ import annotations

from PIL import (  # Pillow would load the decoders at first use, which is not safe in threads
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401 many phones write it as .jpg; the JPEG decoder passes it on
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

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
CONVERT = "which is not read; convert it to PNG or JPEG"
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


class UnreadableError(Exception):
    """The bytes are not a usable image; the message is the reason, in a few words."""


class OutOfMemoryError(UnreadableError):
    """Decoding took more memory than there is, or may be taken."""


def not_read(name: str) -> str | None:
    """Return why a file of this name is not read, if it ends like an image of a format that is known and not read."""
    for kind, extensions in _NOT_READ.items():
        if name.lower().endswith(extensions):
            return f"{kind}, {CONVERT}"
    return None


def kind_not_read(data: bytes) -> str | None:
    """Return the name of a format that is not read, by the bytes that its files begin with."""
    where, mark = _DICOM
    if data[where] == mark:
        return "DICOM"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((kind for begin, kind in _BEGINS.items() if data.startswith(begin)), None)
