"""Where the project and the photographs are, and pictures that are drawn."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


HYMENOPTERA = Path(os.environ.get("HEADSTART_TEST_PHOTOGRAPHS", ROOT.parent / "shared" / "data" / "hymenoptera"))


def photograph(number: int, height_px: int = 40, width_px: int = 60) -> np.ndarray:
    """Return a smooth uint8 [H, W, 3] picture, another one for each number."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray | Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def deep_png(levels: np.ndarray) -> bytes:
    """Return a PNG of uint16 [H, W, 2 to 4], which Pillow reads and does not write; its rows are filtered in turn."""
    height_px, width_px, n_channels = levels.shape
    rows = levels.astype(">u2").tobytes()
    n_bytes, step = 2 * width_px * n_channels, 2 * n_channels
    filtered = bytearray()
    above = np.zeros(n_bytes, np.uint8)
    for number in range(height_px):
        row = np.frombuffer(rows, np.uint8, n_bytes, number * n_bytes)
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        kind = number % 3  # none, sub, up
        filtered += bytes([kind]) + (row - (0, left, above)[kind]).astype(np.uint8).tobytes()
        above = row
    colours = {2: 4, 3: 2, 4: 6}[n_channels]
    header = struct.pack(">IIBBBBB", width_px, height_px, 16, colours, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(filtered))), (b"IEND", b""))
    told = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(told)


def deep_tiff(levels: np.ndarray, order: str = "<", compressed: bool = False) -> bytes:
    """Return a TIFF of uint16 [H, W, 3] in this order of bytes, which Pillow reads and does not write."""
    height_px, width_px, n_channels = levels.shape
    data = levels.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compressed else data
    n_tags = 9
    after = 8 + 2 + 12 * n_tags + 4
    tags = (  # tag, type (3: 16 bits, 4: 32 bits), count, value
        (256, 4, 1, width_px),
        (257, 4, 1, height_px),
        (258, 3, n_channels, after),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, after + 2 * n_channels),
        (277, 3, 1, n_channels),
        (278, 4, 1, height_px),
        (279, 4, 1, len(data)),
    )
    told = (
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    begin = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, n_tags)
    return begin + b"".join(told) + struct.pack(f"{order}I{n_channels}H", 0, *[16] * n_channels) + data
