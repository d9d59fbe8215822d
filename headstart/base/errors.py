"""What can go wrong through no fault of the code. Messages read `<what is wrong>. <What was expected>. <What to do>.`

`tasks/__main__.py` and `cli.py` print them as one line with the stage's name before it, and exit with status 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HeadstartError(Exception):
    """The base of all errors that a user can cause and mend."""


class ParamError(HeadstartError):
    """params.yaml, or a name or file that it points at, is wrong."""


class DataError(HeadstartError):
    """The images, their labels or their manifest are wrong."""


class UnreachableError(HeadstartError):
    """Something on the network does not answer, and may do so later."""


class RejectedError(HeadstartError):
    """A model that is sound and was refused, since the accepted one is better."""


class CheckError(HeadstartError):
    """An artefact is missing, altered, or failed a check that gates it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the nearest known name, or an empty string if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def count_and_name(offenders: Iterable[str], limit: int = 3) -> str:
    """Return up to `limit` offenders for a message: `a, b, c, ...`."""
    items = list(offenders)
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
