"""JPEG decoders on the same files: time, and whether the pixels are Pillow's byte for byte.

`headstart.images.decoding.decode` uses simplejpeg for JPEGs because this says that it is faster and gives the same
bytes. OpenCV gives them too, no sooner, in a package twenty times as large; torchvision's own decoder is measured where
it is built in.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from PIL import Image

from benchmarks.harness import arguments, machine, result, table
from headstart.images import decoding


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Return what can be measured here; each takes a file's bytes and returns RGB uint8 [H, W, 3]."""

    def pillow(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    found: dict[str, Callable[[bytes], np.ndarray]] = {"Pillow": pillow}
    if find_spec("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        found["simplejpeg, its own settings"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)

        def opencv(data: bytes) -> np.ndarray:
            return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))

        found["OpenCV"] = opencv
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        def torchvision(data: bytes) -> np.ndarray:
            tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return np.asarray(decode_jpeg(tensor, ImageReadMode.RGB).permute(1, 2, 0))

        torchvision(_example())
        found["torchvision.io"] = torchvision
    except (ImportError, RuntimeError):
        pass
    found["headstart.images.decoding.decode"] = lambda data: decoding.decode(data).rgb
    return found


def _example() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, repeats=5)
    files = []
    for path in sorted(given.data.rglob("*.jpg")):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "RGB" and image.format == "JPEG" and image.getexif().get(0x0112, 1) == 1:
                files.append(data)
    print(f"{len(files)} upright colour JPEGs; {machine()}; one thread; medians of {given.repeats}")
    known = decoders()
    reference = [known["Pillow"](data) for data in files]
    times: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(given.repeats):  # side by side, so that a slow second hits all
        for name, decode in known.items():
            began = time.perf_counter()
            for data in files:
                decode(data)
            times[name].append((time.perf_counter() - began) / len(files) * 1000)
    rows, same = [], {}
    for name, decode in known.items():
        pairs = zip((decode(data) for data in files), reference, strict=True)
        differences = [int(np.abs(rgb.astype(int) - pixels).max()) for rgb, pixels in pairs]
        same[name] = differences.count(0)
        rows.append([name, float(np.median(times[name])), f"{same[name]} of {len(files)}", max(differences)])
    table(["decoder", "ms an image", "the same bytes as Pillow", "largest difference in levels"], rows)
    ours = float(np.median(times["headstart.images.decoding.decode"]))
    pillow = float(np.median(times["Pillow"]))
    result("decode_speedup_over_pillow", pillow / ours, "times", 1.0, pillow / ours > 1)
    share = same["headstart.images.decoding.decode"] / len(files)
    result("decode_share_of_images_with_pillows_bytes", share, "", 1.0, share == 1)


if __name__ == "__main__":
    main()
