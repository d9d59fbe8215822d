"""Colours for people: on a terminal, and nowhere else."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {"strong": "1", "soft": "2", "bad": "1;31", "good": "1;32", "warning": "1;33"}


def styled(text: str, style: str, stream: TextIO | None) -> str:
    """Return `text` as `stream` should get it. `style`: strong, soft, good, warning or bad.

    A pipe or a file gets plain text, and so does a terminal where NO_COLOR is set (https://no-color.org) or TERM is
    `dumb`.
    """
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if has_colours(stream) else text


def has_colours(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal whose user has not declined colours. None: the stream is closed."""
    return (
        stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
