"""What the header of an image file says about the cost of decoding it, found without a decoder and in bounded time.

A header is `is_plain` if that cost follows from the number of pixels and passes alone. All TIFFs, animations and files
with large or odd metadata are not: their structure lets a few bytes ask for any amount of work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from headstart.images.formats import CONVERT, UnreadableError, kind_not_read

_USUAL_SCANS = 20  # of a JPEG; encoders write one, or some ten if it is progressive
_MOST_PARTS = 10_000  # chunks, segments or blocks that are looked at; a photograph has some hundred at most
_MOST_METADATA = 4_000_000  # bytes that are no pixels
_MOST_EXIF, _MOST_TAGS = 65_536, 500

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers of a frame
_HUFFMAN_DCT = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_SOS = 0xDA
_TIFFS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")  # the two in the middle are wrong, and exist
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


class Header(NamedTuple):
    """The size that a header promises, before rotation. 0 x 0 where it cannot be told without a decoder."""

    format: str
    width_px: int
    height_px: int
    is_plain: bool
    n_scans: int = 1  # of a JPEG: each takes the time of the whole picture

    @property
    def n_pixels(self) -> int:
        """The work of decoding, in pixels: scans beyond the usual number count as further pictures."""
        return self.width_px * self.height_px * max(1, math.ceil(self.n_scans / _USUAL_SCANS))

    def check(self, max_pixels: int) -> None:
        """Raise UnreadableError if there are more pixels."""
        if self.n_pixels > max_pixels:
            scans = f" in {self.n_scans} scans" if self.n_scans > _USUAL_SCANS else ""
            raise UnreadableError(f"{self.width_px} x {self.height_px} pixels{scans}, more than {max_pixels}")


def examined(data: bytes) -> Header:
    """Return the header of an image file; UnreadableError for what is none, or is of a format that is not read."""
    if not data:
        raise UnreadableError("empty file")
    if kind := kind_not_read(data):
        raise UnreadableError(f"{kind}, {CONVERT}")
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in _TIFFS:
        return _tiff(data)
    raise UnreadableError("not an image of a known format")


def _jpeg(data: bytes) -> Header:
    width_px = height_px = n_metadata = n_exif = n_channels = 0
    is_plain = is_one_scan = is_progressive = False
    for marker, body in _segments(data):
        if marker in _SOF:
            if marker in _ARITHMETIC:
                raise UnreadableError(f"JPEG with arithmetic coding, {CONVERT}")
            if marker not in _HUFFMAN_DCT:
                raise UnreadableError(f"lossless or hierarchical JPEG, {CONVERT}")
            height_px, width_px = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            n_channels, is_progressive = body[5] if len(body) > 5 else 0, marker == 0xC2
        elif marker == _SOS:
            is_one_scan = not is_progressive and body[:1] == bytes((n_channels,))  # further ones are then errors
            is_plain = n_metadata <= _MOST_METADATA and n_exif <= 1
        elif marker >= 0xE0:
            n_metadata += len(body)
            if body.startswith(b"Exif\0\0"):
                n_exif += 1 if _is_small_exif(body[6:]) else 2
    # The data of a scan never contain a marker, so each occurrence begins a scan, or lies in metadata.
    return Header("JPEG", width_px, height_px, is_plain, 1 if is_one_scan else data.count(b"\xff\xda"))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and contents of each segment of a JPEG, up to the first scan; less where something is odd."""
    at = 2
    for _ in range(_MOST_PARTS):
        if data[at : at + 1] != b"\xff":
            return
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker < 0xC0 or length < 2 or at + 2 + length > len(data):
            return
        yield marker, data[at + 4 : at + 2 + length]
        if marker == _SOS:
            return
        at += 2 + length


def _png(data: bytes) -> Header:
    width_px, height_px = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at, n_metadata, is_plain = 8, 0, data[12:16] == b"IHDR"
    for _ in range(_MOST_PARTS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name not in (b"IHDR", b"PLTE", b"IDAT"):
            n_metadata += length
        if name == b"acTL" or (name == b"eXIf" and not _is_small_exif(data[at + 8 : at + 8 + length])):
            is_plain = False
        if name in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(b"Raw profile type ", at + 8):
            is_plain = False
        at += 12 + length
        if name == b"IEND" or at >= len(data):
            return Header("PNG", width_px, height_px, is_plain and n_metadata <= _MOST_METADATA)
    return Header("PNG", width_px, height_px, is_plain=False)


def _gif(data: bytes) -> Header:
    width_px, height_px = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10:11] >= b"\x80" else 0)
    for _ in range(_MOST_PARTS):
        begin = data[at : at + 1]
        if begin == b",":  # the first frame, which may reach beyond the screen
            left, top, width, height = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
            return Header("GIF", max(width_px, left + width), max(height_px, top + height), is_plain=True)
        if begin == b"!":
            at += 2
            while (size := data[at : at + 1]) and size != b"\0":
                at += 1 + size[0]
                if at > _MOST_METADATA:
                    return Header("GIF", width_px, height_px, is_plain=False)
            at += 1
        elif begin in (b"", b";"):
            break
        else:
            at += 1
    return Header("GIF", width_px, height_px, is_plain=False)


def _bmp(data: bytes) -> Header:
    if data[14:18] == b"\x0c\0\0\0":
        return Header(
            "BMP", int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little"), is_plain=True
        )
    width_px, height_px = (abs(int.from_bytes(data[n : n + 4], "little", signed=True)) for n in (18, 22))
    return Header("BMP", width_px, height_px, is_plain=True)


def _webp(data: bytes) -> Header:
    kind, width_px, height_px, is_plain = data[12:16], 0, 0, True
    if kind == b"VP8 " and len(data) >= 30:
        width_px, height_px = (int.from_bytes(data[n : n + 2], "little") & 0x3FFF for n in (26, 28))
    elif kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        width_px, height_px = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X" and len(data) >= 30:
        width_px, height_px = (int.from_bytes(data[n : n + 3], "little") + 1 for n in (24, 27))
        is_plain = not data[20] & 0b1110  # animation, XMP, EXIF
    return Header("WEBP", width_px, height_px, is_plain)


def _tiff(data: bytes) -> Header:
    order = "little" if data.startswith(b"II") else "big"

    def number(at: int, n_bytes: int) -> int:
        return int.from_bytes(data[at : at + n_bytes], order)  # type: ignore[arg-type]

    sides = {256: 0, 257: 0}  # the tags of width and height
    if b"*" in data[2:4]:  # the form of BigTIFF is left to Pillow
        at = number(4, 4)
        for entry in range(at + 2, at + 2 + 12 * min(number(at, 2), _MOST_TAGS), 12):
            if (tag := number(entry, 2)) in sides:
                sides[tag] = number(entry + 8, 2 if number(entry + 2, 2) == 3 else 4)
    return Header("TIFF", sides[256], sides[257], is_plain=False)


def _is_small_exif(tiff: bytes) -> bool:
    """Return whether the first directory of EXIF data is as short as cameras write it."""
    order = "little" if tiff.startswith(b"II") else "big"
    at = int.from_bytes(tiff[4:8], order)  # type: ignore[arg-type]
    n_tags = int.from_bytes(tiff[at : at + 2], order)  # type: ignore[arg-type]
    return len(tiff) <= _MOST_EXIF and n_tags <= _MOST_TAGS
