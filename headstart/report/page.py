"""Renders the report: a heading and its sections, in one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.evaluation.folder import TestScores
from headstart.report import pictures

MAX_ROWS = 20
TILE_PX = 64


class Section(Protocol):
    """A question that the report answers. `sections/NAME.html` is its template and gets the data as `section`."""

    @property
    def template(self) -> str:
        """The NAME of the template."""

    def figures(self) -> Mapping[str, str]:
        """Return the plots as SVG, by name."""


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
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["megabytes"] = lambda value: f"{value / 1e6:.1f} MB"
    environment.globals |= {
        "picture": pictures.picture,
        "strip": pictures.strip,
        "overlaid": pictures.overlaid,
        "max_rows": MAX_ROWS,
        "tile_px": TILE_PX,
    }
    parts = [
        environment.get_template(f"sections/{section.template}.html").render(
            section=section, figures={name: Markup(svg) for name, svg in section.figures().items()}
        )
        for section in sections
    ]
    return environment.get_template("page.html").render(heading=heading, sections=[Markup(part) for part in parts])
