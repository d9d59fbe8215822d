"""Renders the report: a heading and its sections, in one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from headstart.base.errors import CheckError
from headstart.evaluation.folder import TestScores
from headstart.report import pictures

_FOLDER = Path(__file__).parent
_HEADING = re.compile(r'<h([23]) id="([^"]+)">(.*?)</h\1>')
MAX_ROWS = 20  # of a long table, before the reader asks for more
TILE_PX = 64


# Around what is said of the commit, which is made after the page.
_COMMIT = Markup("<!--commit-->"), Markup("<!--/commit-->")
_NO_COMMIT = Markup("made after this page; in the project, <code>git log -1 -- dvc.lock</code> names it")


class Section(Protocol):
    """A question that the report answers. `sections/NAME.html` is its template and gets the data as `section`."""

    @property
    def template(self) -> str:
        """The NAME of the template."""

    def figures(self) -> Mapping[str, str]:
        """Return the plots as SVG, by name."""


class Entry(NamedTuple):
    """A line of the table of contents."""

    level: int  # 2: a section; 3: a part of it
    id: str
    title: Markup


@dataclass(frozen=True)
class Heading:
    """The facts above the sections."""

    dataset: str
    n_classes: int
    backbone: str
    is_tuned: bool
    n_images: int  # that the model was trained on
    test: TestScores


def render(heading: Heading, sections: Sequence[Section]) -> str:
    """Return the page; the same sections give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["kilobytes"] = lambda n_numbers: f"{4 * n_numbers / 1e3:,.{1 if n_numbers < 2500 else 0}f}"
    environment.filters["with_code"] = with_code
    environment.filters["megabytes"] = lambda value: f"{value / 1e6:.1f} MB"
    environment.globals |= {
        "picture": pictures.picture,
        "strip": pictures.strip,
        "overlaid": pictures.overlaid,
        "max_rows": MAX_ROWS,
        "tile_px": TILE_PX,
        "commit": _NO_COMMIT.join(_COMMIT),
    }
    parts = [
        environment.get_template(f"sections/{section.template}.html").render(
            section=section, figures={name: Markup(svg) for name, svg in section.figures().items()}
        )
        for section in sections
    ]
    return environment.get_template("page.html").render(
        heading=heading,
        sections=[Markup(part) for part in parts],
        contents=[entry for part in parts for entry in contents(part)],
        style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
    )


def with_code(text: str) -> Markup:
    """Return a message as HTML: what stands between two backticks as code, and all of it escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a name has one of its own
        return escape(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if at % 2 else part for at, part in enumerate(parts))


def with_commit(page: str, commit: str) -> str:
    """Return a copy of the page that names the commit; CheckError if the page has no place for it."""
    begin, end = _COMMIT
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise CheckError(
            "the report has no place for the commit. A report of this version was expected. Run `dvc repro report`."
        )
    return "".join([before, str(escape(commit)), after])


def contents(section: str) -> list[Entry]:
    """Return the headings of a rendered section that have an id."""
    return [Entry(int(level), name, Markup(title)) for level, name, title in _HEADING.findall(section)]
