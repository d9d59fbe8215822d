"""params.yaml: read into checked parameters, and written without losing its comments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart import params_text
from headstart.base.errors import ParamError, did_you_mean, on_one_line
from headstart.base.files import write_text
from headstart.param_types import NO_IMAGES
from headstart.params import Params, parse

_MOST_BYTES = 2_000_000  # a weight for each of fifty thousand classes
_MOST_VALUES = 100_000
_PATHS = ("data.root", "data.unlabelled")
_OPENING, _MOST_OPENED = (b"[", b"{", b"- -", b"? ?"), 1000
# What ruamel raises beside its own errors: a date that does not exist, a number of too many digits, no end of lists.
_NO_VALUE = (ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError)


def load(path: Path) -> Params:
    """Return the checked parameters; ParamError on anything unknown, missing or out of range."""
    return parse(_read(path), path.name)


def assign(path: Path, assignments: list[str], check: Callable[[Params], None] = lambda params: None) -> Params:
    """Write `section.name=value` assignments into params.yaml once they are checked; return the outcome.

    Comments are kept. `check` may raise to refuse the assignments; the file is then as it was.
    Values are read as YAML, so `split.seed=1` is a number and `backbone.sha256=null` is nothing.
    """
    text, params = assigned(path, assignments)
    check(params)
    if assignments:
        write_text(path, text)
    return params


def assigned(path: Path, assignments: list[str]) -> tuple[str, Params]:
    """Return what `assign` would write, and the parameters in it; ParamError on a wrong name or value."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    document = _read(path)
    before, values = path.read_bytes().decode(), {}
    if not isinstance(document, dict):
        parse(document, path.name)  # raises
    remedy = f"{path.name} is unchanged: give another value." if _is_sound(document) else ""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or "." not in name:
            raise ParamError(f"'{assignment}' is not an assignment. `section.name=value` was expected.")
        section, last = params_text.place(document, name)
        if section is None:
            hint = did_you_mean(name, _dotted(document))
            raise ParamError(f"{name} is not a parameter.{hint} See {path.name} for all of them.")
        try:
            _check_depth(text.encode())
            # pure: the C parser ends the process where lists are nested deeply
            value = YAML(typ="safe", pure=True).load(text) if name not in _PATHS else _tidy_path(text)
            value = NO_IMAGES if (name, value) == ("data.unlabelled", "null") else value
            section[last] = values[name] = value
            _check_extent(value, name)
        except (*_NO_VALUE, YAMLError):
            raise ParamError(f"{name}={on_one_line(text)} is not a YAML value. Quote it, or give another.") from None
    params = parse(document, path.name, remedy)
    return _written(path, before, values), params


def revert(path: Path, names: list[str], before: str, written: str) -> None:
    """Give parameters that have the value of the text `written` their value in the text `before`; the rest stays."""
    text = path.read_bytes().decode()
    now, earlier, later = (params_text.plain(each) for each in (text, before, written))
    values = {}
    for name in names:
        (section, last), (then, _), (given, _) = (params_text.place(each, name) for each in (now, earlier, later))
        if section is not None and section[last] == given[last]:
            values[name] = then[last]
    write_text(path, _written(path, text, values))


def _written(path: Path, text: str, values: dict[str, Any]) -> str:
    written = params_text.with_values(text, values)
    if written is None:
        raise ParamError(
            f"{path.name} cannot be given {', '.join(values)} without other values changing, and is unchanged. Anchors"
            " and unusual YAML do that. Write the value there in an editor."
        )
    return written


def _is_sound(document: Any) -> bool:
    """Return whether parameters can be used as they are, so that whatever is wrong later is an assignment."""
    try:
        parse(document)
    except ParamError:
        return False
    return True


def _tidy_path(text: str) -> str:
    """Return a path as a shell's completion gives it, without its trailing slash and with `~` spelt out, or a URL."""
    text = text.removeprefix("file://")
    return Path(text).expanduser().as_posix() if text and "://" not in text else text


def _read(path: Path) -> Any:
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise ParamError(f"{path} does not exist. Run from the folder that holds params.yaml.")
    if (n_bytes := path.stat().st_size) > _MOST_BYTES:
        raise ParamError(
            f"{path.name} has {n_bytes / 1e6:.1f} MB. At most {_MOST_BYTES / 1e6:g} MB were expected. Restore it with"
            " git."
        )
    data = path.read_bytes()
    try:
        _check_depth(data)
        document = params_text.round_trip().load(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParamError(
            f"{path.name} is not UTF-8 at line {line}. Save it as UTF-8, or restore it with git."
        ) from None
    except RecursionError:
        raise ParamError(f"{path.name} is nested too deeply. Sections of values were expected. Mend it.") from None
    except (*_NO_VALUE, YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line_told = f" at line {mark.line + 1}" if mark else ""
        raise ParamError(f"{path.name} is not valid YAML{line_told}. Mend it, or restore it with git.") from None
    _check_extent(document, path.name)
    return document


def _check_depth(data: bytes) -> None:
    """Raise RecursionError for a text that may be nested deeply, on which ruamel spends the square of its depth."""
    if sum(map(data.count, _OPENING)) > _MOST_OPENED:
        raise RecursionError


def _check_extent(document: Any, where: str) -> None:
    """Raise ParamError where aliases make a short text a document without measure: it is too long to be looked at."""
    waiting, n_values = [document], 0
    while waiting:
        value = waiting.pop()
        n_values += 1
        if n_values + len(waiting) > _MOST_VALUES:
            raise ParamError(
                f"{where} holds more than {_MOST_VALUES} values. Aliases that repeat one another make so many. Write"
                " the values themselves."
            )
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _dotted(document: dict[str, Any]) -> list[str]:
    sections = {section: values for section, values in document.items() if isinstance(values, dict)}
    return [f"{section}.{name}" for section, values in sections.items() for name in values]
