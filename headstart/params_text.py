"""Values in the text of params.yaml replaced by others, while every other byte, and every comment, stays where it was.

What is returned was read back: a text that says anything but the values wanted never reaches the file.
"""

from __future__ import annotations

import io
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z_./](?:[\w./@~+-]|[ :](?=[\w./~]))*")  # texts that may stand without quotes
_OF_YAML_1_1 = ("y", "n", "yes", "no", "on", "off")  # true and false to readers of that version
# What ruamel raises beside its own errors, for texts that it or this module wrote amiss.
_AMISS = (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, OverflowError)


def with_values(text: str, values: dict[str, Any]) -> str | None:
    """Return the YAML text with plain values by dotted name; None where no text was found that reads back to them.

    Every name has to be there. Where a value cannot be replaced in its place, the whole is written anew by ruamel.
    """
    expected, document = plain(text), round_trip().load(text)
    for name, value in values.items():
        for each in (expected, document):
            section, last = place(each, name)
            section[last] = value
    stream = io.StringIO()
    round_trip().dump(document, stream)
    found = (each for each in (_spliced(text, values), stream.getvalue()) if each and _reads_as(each, expected))
    return next(found, None)


def place(document: Any, name: str) -> tuple[Any, str]:
    """Return the section of a parameter, and its name there; the section is None if there is no such parameter."""
    *sections, last = name.split(".")
    target = document
    for section in sections:
        target = target.get(section) if isinstance(target, dict) else None
    return (target if isinstance(target, dict) and last in target else None), last


def plain(text: str) -> Any:
    """Return what a YAML text holds, without comments."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)  # pure: the C parser ends the process where lists are nested deeply


def _reads_as(text: str, expected: Any) -> bool:
    from ruamel.yaml.error import YAMLError

    try:
        round_trip().load(text)
        return repr(plain(text)) == repr(expected)  # 1 is not true, nor 1.0
    except (*_AMISS, YAMLError):
        return False


def _spliced(text: str, values: dict[str, Any]) -> str | None:
    from ruamel.yaml.error import YAMLError

    try:
        before = plain(text)
        for name, value in values.items():
            section, last = place(before, name)
            if repr(section[last]) != repr(value):
                text = with_value(text, name, value)
    except (*_AMISS, YAMLError):
        return None
    return text


def with_value(text: str, name: str, value: Any) -> str:
    """Return a YAML text in which the dotted name has a plain value, written on the line of its key.

    Lists and mappings that took lines of their own give these up, with the comments on them. KeyError if there is no
    such name. Anchors and aliases are not looked at: whoever calls reads the outcome back before it takes it.
    """
    key, node = _entry(text, name)
    colon = text.index(":", key.end_mark.index) + 1
    is_here = node.start_mark.line == key.start_mark.line and node.start_mark.index < node.end_mark.index
    if is_here and not _is_block(node):
        start, end = node.start_mark.index, node.end_mark.index
        return text[:start] + _aligned(text[start:end], on_one_line(value), text[end:])
    end_of_line = last = _end_of_line(text, colon)
    if node.start_mark.index < node.end_mark.index:
        last = _end_of_line(text, _last_index(text, node))
    return (
        text[:colon] + _aligned("", f" {on_one_line(value)}", text[colon:end_of_line]) + text[max(last, end_of_line) :]
    )


def round_trip() -> Any:
    """Return what reads and writes YAML with its comments and order."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Its own class, since a class's representers are everybody's: DVC writes its lock file by the other."""

    Representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def on_one_line(value: Any) -> str:
    """Return a plain value as YAML in flow style; ValueError for what is not of JSON's kinds, such as a date."""
    if isinstance(value, str):
        is_bare = _BARE.fullmatch(value) and value.lower() not in _OF_YAML_1_1 and plain(value) == value
        return value if is_bare else '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(on_one_line, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{on_one_line(name)}: {on_one_line(each)}" for name, each in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, int | float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    raise ValueError(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _entry(text: str, name: str) -> tuple[Any, Any]:
    """Return the nodes of the key and of the value of a dotted name."""
    from ruamel.yaml import YAML

    key, node = None, YAML(typ="safe", pure=True).compose(text)
    for part in name.split("."):
        entries = node.value if isinstance(getattr(node, "value", None), list) else []
        key, node = next(((each, value) for each, value in entries if each.value == part), (None, None))
        if key is None:
            raise KeyError(name)
    return key, node


def _is_block(node: Any) -> bool:
    return isinstance(node.value, list) and not node.flow_style


def _last_index(text: str, node: Any) -> int:
    """Return where the last value in a node ends. A block's own mark stands after the blank lines that follow it."""
    while _is_block(node) and node.value:
        node = node.value[-1][1] if isinstance(node.value[-1], tuple) else node.value[-1]
    return len(text[: node.end_mark.index].rstrip())


def _end_of_line(text: str, start: int) -> int:
    found = re.compile(r"\r?\n|\Z").search(text, start)
    assert found
    return found.start()


def _aligned(old: str, new: str, rest: str) -> str:
    """Return the new value and what follows it; a comment on the same line keeps its column where there is room."""
    found = re.match(r" +(?=#)", rest)
    if not found:
        return new + rest
    return new + " " * max(1, len(old) + len(found[0]) - len(new)) + rest[found.end() :]
