"""Errors that are not bugs in the code. Messages read `<what is wrong>. <What was expected>. <What to do>.`

`tasks/__main__.py` and `cli.py` print them in one line, after the name of the stage, and exit with status 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 400  # characters of an offender in a message; the name of a file has at most 255 bytes


class OutputError(OSError):
    """What is printed cannot be written; no file is concerned."""


class HeadstartError(Exception):
    """The base class of errors that a user can cause and correct."""


class ParamError(HeadstartError):
    """params.yaml is wrong, or a name or file that it refers to."""


class DataError(HeadstartError):
    """The images, their labels or their manifest are wrong."""


class ChangedError(DataError):
    """An image is not the one that `validate` has seen; the next `headstart run` looks at all of them again."""


class UnreachableError(HeadstartError):
    """A network resource does not answer; a later attempt may succeed."""


class RejectedError(HeadstartError):
    """A sound model was rejected because the accepted one is better."""


class CheckError(HeadstartError):
    """An artefact is missing or altered, or it fails a check."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the nearest known name, or an empty string if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def count_and_name(offenders: Iterable[str], limit: int = 3) -> str:
    """Return the first `limit` offenders in the form of a message: `a, b, c, ...`, each cut to a line's length."""
    items = list(offenders)
    return ", ".join(on_one_line(item) for item in items[:limit]) + (", ..." if len(items) > limit else "")


def counted(n: int, one: str, many: str) -> str:
    """Return a number with the words that follow it, such as "1 class has" or "1,200 classes have"."""
    return f"{n:,} {one if n == 1 else many}"


def on_one_line(text: str) -> str:
    """Return a text that others have written as `printable`, cut where it is long."""
    plain = printable(text[: _LONGEST + 1])
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}..."


def printable(text: str, keep: str = "") -> str:
    """Return a text with an escape in place of each character that could move a cursor, change colours or turn words.

    So a name that others have chosen cannot write over what a terminal shows. `keep`: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _escape(each) for each in text)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # of a file's name that is no UTF-8, as Python keeps it
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
