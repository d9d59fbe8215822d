"""Images in rows, a class each, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TILE_PX = 88
_GAP_PX = 4
_LABEL_PX = 110
_FONT_PX = 13
_MAX_LETTERS = 15


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
