"""Write the embedded default dataset: scikit-learn's bundled handwritten digits as class folders of PNG files.

Reads nothing; writes data/digits/<class>/*.png. The files' bytes must not change: all later digests depend on them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headstart.base.files import bundled_with_scikit_learn, replacing_folder
from headstart.base.progress import say

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [1797, 8, 8] images, black on white, and int [1797] labels (Alpaydin & Kaynak 1998, UCI)."""
    rows = np.loadtxt(bundled_with_scikit_learn("data/digits.csv.gz"), delimiter=",")
    return np.round(255 - rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), rows[:, -1].astype(int)


def png(gray: np.ndarray) -> bytes:
    """Return uint8 [H, W] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG")
    return buffer.getvalue()


def run(params: Params, layout: Layout) -> None:
    """Write the whole dataset; on failure the folder is unchanged."""
    images, labels = digits()
    with replacing_folder(layout.digits) as folder:
        for label in np.unique(labels):
            (folder / str(label)).mkdir()
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / str(label) / f"{number:04d}.png").write_bytes(png(image))
    say(f"wrote {len(images)} images of {len(np.unique(labels))} classes to data/digits")
