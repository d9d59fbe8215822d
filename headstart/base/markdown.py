"""Text of others, such as labels and names of files, within Markdown."""

from __future__ import annotations

import re

from headstart.base.errors import printable

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is: no HTML, link, emphasis, code or cell of a table begins in it."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", printable(text)).translate(_HTML)
