"""The licence of pretrained weights as an SPDX expression, and the gate that decides whether they may ship."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from headstart.base.errors import ParamError

NONE = "none"  # of random weights: nobody has a right in them
UNKNOWN = "unknown"
ANY = "any"  # in params.yaml: whatever ships, ships


class Licence(NamedTuple):
    """What is known of the licence of some weights."""

    name: str  # an SPDX expression such as Apache-2.0 or LicenseRef-NAME, `unknown`, or `none`
    source: str  # who says so, in words


def canonical(text: str) -> str:
    """Return an SPDX expression in SPDX's own spelling, or `unknown`; ValueError if `text` is neither."""
    from packaging.licenses import canonicalize_license_expression

    return UNKNOWN if text == UNKNOWN else canonicalize_license_expression(text)


def of_library(said: str | None, library: str) -> Licence:
    """Return the licence that `library` names for its weights; what SPDX does not list becomes LicenseRef-NAME."""
    if said and "://" in said:
        return Licence(UNKNOWN, f"{library} points to {said}")
    if not said or said == UNKNOWN:
        return Licence(UNKNOWN, f"{library} does not say")
    try:
        name = canonical(said)
    except ValueError:
        name = canonical("LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", said))
    return Licence(name, f"{library} says '{said}'")


def of_card(said: object, named: object, where: str) -> Licence:
    """Return the licence that a model card states: `license`, and `license_name` where that is `other`."""
    if said == "other" and isinstance(named, str) and named:
        said = named
    if not isinstance(said, str) or said in ("", UNKNOWN, "other"):
        return Licence(UNKNOWN, f"{where} says {said!r}" if said else f"{where} states none")
    return of_library(said, where)


def check(licence: Licence, backbone: str, allowed: Sequence[str]) -> None:
    """Raise ParamError unless `allowed`, the value of export.licences, has the licence."""
    if licence.name == NONE or allowed == ANY or licence.name in allowed:
        return
    mends = "If you may hand them on, add {} to export.licences; or choose other weights"
    if licence.name == UNKNOWN:
        mends = f"Set backbone.licence to theirs if you know it. {mends}"
    raise ParamError(
        f"the licence of the weights of '{backbone}' is {licence.name} ({licence.source}). To ship, it must be one of"
        f" export.licences: {', '.join(allowed)}. {mends.format(licence.name)}. Both are in params.yaml."
    )
