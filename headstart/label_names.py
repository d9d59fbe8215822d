"""Labels that people take for one and computers for several: other case, other spaces, another form of Unicode."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.base.errors import count_and_name
from headstart.base.progress import say, warn

if TYPE_CHECKING:
    from headstart.listing import Listing


def twins(labels: Iterable[str]) -> dict[str, str]:
    """Return label -> the spelling that stands for it and its twins, for the labels that have another one.

    That is the one of the most images, of several such the first in the order of characters, without spaces around it
    and in Unicode's composed form (NFC). `labels`: one for each image.
    """
    counts = Counter(labels)
    alike: dict[str, list[str]] = {}
    for label in counts:
        alike.setdefault(_plain(label).casefold(), []).append(label)
    found = {}
    for several in alike.values():
        chosen = _plain(min(several, key=lambda label: (-counts[label], label)))
        if len(several) > 1:
            found.update(dict.fromkeys(sorted(several), chosen))
    return found


def told(found: Mapping[str, str]) -> list[str]:
    """Return the twins in words, such as "'Ant' and 'ant'"; what looks alike is told by its characters."""
    groups: dict[str, list[str]] = {}
    for label, chosen in found.items():
        groups.setdefault(chosen, []).append(label)
    return [" and ".join(_shown(label, group) for label in group) for group in groups.values()]


def applied(listing: Listing, normalise: bool) -> Listing:
    """Return the listing with one label for those that differ in case, spaces or form of Unicode alone, if wanted.

    Otherwise they stay classes of their own, and are told.
    """
    found = twins(item.label for item in listing.found)
    if not found:
        return listing
    named = count_and_name(told(found))
    if not normalise:
        warn(
            f"{len(found)} labels differ from another in case, spaces or form of Unicode alone ({named}), and are"
            " classes of their own. If they are the same, set data.normalise_labels to true in params.yaml"
        )
        return listing
    say(f"{len(found)} labels that differ in case, spaces or form of Unicode alone are joined ({named})")
    images = [item._replace(label=found.get(item.label, item.label)) for item in listing.found]
    return replace(listing, found=images)


def _plain(label: str) -> str:
    return unicodedata.normalize("NFC", " ".join(label.split()))


def _shown(label: str, group: list[str]) -> str:
    looks_alike = len({unicodedata.normalize("NFC", each) for each in group}) < len(group)
    return ascii(label) if looks_alike else repr(label)
