"""Pictures of data and results, as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MAX_NAMED = 30  # classes beyond which a name for each no longer fits
_TILE_PX = 88
_GAP_PX = 4
_LABEL_PX = 110
_FONT_PX = 13
_MAX_LETTERS = 15


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Return a PNG of int64 [C, C], labels down, predictions across; shades are shares of a row, numbers are images."""
    from matplotlib.figure import Figure

    n_classes = len(classes)
    few = n_classes <= _MAX_NAMED
    side = 2.5 + (0.42 * n_classes if few else 6)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if few else "antialiased")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if few:
        axes.set_xticks(range(n_classes), classes, rotation=90)
        axes.set_yticks(range(n_classes), classes)
        for row, column in np.argwhere(confusion):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(confusion[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def contact_sheet(rows: Mapping[str, np.ndarray | Sequence[np.ndarray]]) -> bytes:
    """Return a JPEG with a row a class: its name, then its images, uint8 [H, W, 3] each."""
    columns = max(map(len, rows.values()))
    step = _TILE_PX + _GAP_PX
    sheet = Image.new("RGB", (_LABEL_PX + columns * step, len(rows) * step + _GAP_PX), "#e8e8e8")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_PX)
    for row, (name, images) in enumerate(rows.items()):
        top = _GAP_PX + row * step
        shown = name if len(name) <= _MAX_LETTERS else name[: _MAX_LETTERS - 3] + "..."
        draw.text((_GAP_PX, top + _TILE_PX // 2), shown, fill="black", font=font, anchor="lm")
        for column, pixels in enumerate(images):
            tile = Image.fromarray(pixels)
            tile.thumbnail((_TILE_PX, _TILE_PX))
            sheet.paste(tile, (_LABEL_PX + column * step, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
