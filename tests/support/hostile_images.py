"""Image files that ask for more than they seem to, each built from its own bytes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.support.images import encoded, photograph


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width_px: int, height_px: int, *before: bytes, bits: int = 8, colours: int = 2) -> bytes:
    """Return a PNG that is all zeros, with further chunks before its pixels."""
    n_bytes = (width_px * {0: 1, 2: 3, 4: 2, 6: 4}[colours] * bits + 7) // 8 + 1
    packer, packed = zlib.compressobj(9), []
    zeros = bytes(n_bytes * max(1, 1_000_000 // n_bytes))
    rows_left = height_px
    while rows_left > 0:
        n_rows = min(rows_left, len(zeros) // n_bytes)
        packed.append(packer.compress(zeros[: n_rows * n_bytes]))
        rows_left -= n_rows
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colours, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, chunk(b"IDAT", b"".join(packed)), chunk(b"IEND", b""))
    )


def gif(screen: tuple[int, int], frame: tuple[int, int] = (1, 1), n_frames: int = 1, before: bytes = b"") -> bytes:
    """Return a GIF of black frames, whose pixels end after the first of each."""
    palette = bytes((0, 0, 0, 255, 255, 255))
    one = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + palette + before + one * n_frames + b";"


def webp_with_alpha(width_px: int, height_px: int) -> bytes:
    """Return a lossless WebP of one half-transparent colour: a few bytes, whatever its size."""
    bits = ((width_px - 1) | (height_px - 1) << 14 | 1 << 28).to_bytes(4, "little")
    one = encoded(Image.new("RGBA", (16, 16), (200, 100, 50, 128)), "WEBP", lossless=True)
    at = one.index(b"VP8L") + 8
    body = b"\x2f" + bits + one[at + 5 :].split(b"EXIF")[0]
    body += b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def jpeg_of_scans(n_scans: int, side_px: int = 1000) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = encoded(Image.new("RGB", (side_px, side_px), (90, 120, 200)), "JPEG", progressive=True, quality=50)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n_scans + data[-2:]


def jpeg_of_size(width_px: int, height_px: int) -> bytes:
    """Return a small JPEG whose header tells of another size."""
    data = bytearray(encoded(photograph(3), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height_px, width_px)
    return bytes(data)


Tag = tuple[int, int, int, int]  # number, type (3: 16 bits, 4: 32 bits), count, value or where it lies


def tiff(tags: list[Tag], data: bytes = b"", order: str = "<") -> bytes:
    """Return a TIFF with these tags, whose data begin after them (at `tiff_data_at`)."""
    told = (
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in sorted(tags)
    )
    begin = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return begin + b"".join(told) + bytes(4) + data


def tiff_data_at(n_tags: int) -> int:
    """Return where the data of a `tiff` begin."""
    return 8 + 2 + 12 * n_tags + 4


def grey_tiff(
    values: bytes,
    width_px: int,
    height_px: int,
    bits: int | tuple[int, int],
    white: int = 1,
    signed: bool = False,
    extra: int | None = None,
    order: str = "<",
) -> bytes:
    """Return an uncompressed grey TIFF. `white`: the tag PhotometricInterpretation. `extra`: ExtraSamples."""
    n_channels = len(bits) if isinstance(bits, tuple) else 1
    tags: list[Tag] = [(256, 4, 1, width_px), (257, 4, 1, height_px), (259, 3, 1, 1), (262, 3, 1, white)]
    tags += [(277, 3, 1, n_channels), (278, 4, 1, height_px), (279, 4, 1, len(values))]
    tags += [(339, 3, 1, 2)] if signed else []
    tags += [(338, 3, 1, extra)] if extra is not None else []
    at = tiff_data_at(len(tags) + 2)
    if isinstance(bits, tuple):  # two values of 16 bits fit into the field of a tag
        packed = bits[0] | bits[1] << 16 if order == "<" else bits[0] << 16 | bits[1]
        tags.append((258, 3, 2, packed))
    else:
        tags.append((258, 3, 1, bits))
    return tiff([*tags, (273, 4, 1, at)], values, order)


def packed_12_bits(levels: np.ndarray) -> bytes:
    """Return values of 12 bits, two in three bytes; the number in a row must be even."""
    first, second = levels[:, ::2].astype(int), levels[:, 1::2].astype(int)
    three = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    return three.astype(np.uint8).tobytes()


def many_tags(n_tags: int, count: int, kind: int = 1) -> bytes:
    """Return a TIFF of one pixel, of which each tag claims the same `count` of numbers as its value."""
    usual: list[Tag] = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    at = tiff_data_at(len(usual) + 3 + n_tags)
    usual += [(273, 4, 1, at), (278, 4, 1, 1), (279, 4, 1, 1)]
    numbers = np.arange(count * kind // 4, dtype="<u4").tobytes()
    return tiff([*usual, *((40_000 + n, kind, count, at) for n in range(n_tags))], numbers)


def many_strips(count: int) -> bytes:
    """Return a TIFF of one pixel that names so many places for it."""
    tags: list[Tag] = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(278, 4, 1, 2), (279, 4, 1, 1)]
    tags += [(273, 4, count, tiff_data_at(len(tags) + 1))]
    return tiff(tags, np.full(count, 8, "<u4").tobytes())


def tile(side_px: int) -> bytes:
    """Return a compressed TIFF of one pixel in a tile of another size."""
    tags: list[Tag] = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    data = zlib.compress(bytes(100))
    tags += [(322, 4, 1, side_px), (323, 4, 1, side_px), (325, 4, 1, len(data))]
    return tiff([*tags, (324, 4, 1, tiff_data_at(len(tags) + 1))], data)


def truncated(data: bytes, step: int) -> Iterator[bytes]:
    """Yield the file cut at every `step`th byte."""
    for end in range(0, len(data), step):
        yield data[:end]


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return a file with all frames of an animation."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def noise(n_bytes: int, seed: int = 0) -> bytes:
    """Return bytes that compress to nothing less."""
    return random.Random(seed).randbytes(n_bytes)


def bombs() -> dict[str, Callable[[], bytes]]:
    """Return what must be refused at little cost: by the header, or by a worker's limits."""
    long_text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(60_000_000), 9))
    profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 900000\n" + b"00" * 450_000, 9))
    huge_exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + b"\x0f\x01\x02\0\xff\xff\x0f\0\0\0\0\0" * 65_535
    return {
        "GIF of 51 bytes": lambda: gif((13_000, 13_700)),
        "GIF, screen of 65,535 square": lambda: gif((65_535, 65_535)),
        "GIF, frame larger than its screen": lambda: gif((1, 1), (65_535, 65_535)),
        "WebP with alpha of 16,383 x 10,900": lambda: webp_with_alpha(16_383, 10_900),
        "PNG of 13,370 square": lambda: png(13_370, 13_370, bits=1, colours=0),
        "PNG of 60,000 square": lambda: png(60_000, 1)[:16] + struct.pack(">II", 60_000, 60_000) + png(60_000, 1)[24:],
        "PNG, 60 MB of text in 60 kB": lambda: png(8, 8, long_text),
        "PNG, EXIF in text": lambda: png(8, 8, profile),
        "PNG, EXIF of 65,535 tags": lambda: png(8, 8, chunk(b"eXIf", huge_exif)),
        "JPEG of 3,000 scans": lambda: jpeg_of_scans(3000, 2000),
        "JPEG of 65,500 square": lambda: jpeg_of_size(65_500, 65_500),
        "TIFF of 4 billion square": lambda: tiff([(256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1)]),
        "TIFF, 1,000 tags of 4 MB": lambda: many_tags(1000, 4_000_000),
        "TIFF, a tag of 15 million numbers": lambda: many_tags(1, 15_000_000, kind=4),
        "TIFF of 3 million strips": lambda: many_strips(3_000_000),
        "TIFF, a tile of 60,000 square": lambda: tile(60_000),
    }
