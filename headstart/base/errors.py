"""Errors that are not bugs in the code. Messages read `<what is wrong>. <What was expected>. <What to do>.`

`tasks/__main__.py` and `cli.py` print them in one line, after the name of the stage, and exit with status 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HeadstartError(Exception):
    """The base class of errors that a user can cause and correct."""


class ParamError(HeadstartError):
    """params.yaml is wrong, or a name or file that it refers to."""


class DataError(HeadstartError):
    """The images, their labels or their manifest are wrong."""


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
    """Return the first `limit` offenders in the form of a message: `a, b, c, ...`."""
    items = list(offenders)
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
