"""How the plots of the report are drawn: by matplotlib, as SVG that takes its colours and its font from the page.

The same values give the same bytes. Text stays text: it can be searched, and it shrinks with the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Placeholders for the page's colours while matplotlib draws; dark mode and print have other colours.
INK, SOFT, LINE, RIGHT, WRONG, PANEL = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_OF_THE_PAGE = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    RIGHT: "var(--right)",
    WRONG: "var(--wrong)",
    PANEL: "var(--panel)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $5
    "font.size": 9,
    "text.color": SOFT,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


class drawn:  # noqa: N801 used as a function
    """A figure of a size in inches: `with drawn(...) as (axes, done)`, and `done()` returns its SVG."""

    def __init__(self, name: str, size: tuple[float, float]) -> None:
        self._name, self._size = name, size

    def __enter__(self) -> tuple[Axes, Callable[[], str]]:
        import matplotlib
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context({**_STYLE, "svg.hashsalt": self._name})  # type: ignore[dict-item]
        self._context.__enter__()
        figure = Figure(figsize=self._size, layout="constrained")

        def done() -> str:
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            return _for_the_page(buffer.getvalue(), self._name)

        return figure.add_subplot(), done

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)  # type: ignore[arg-type]


def _for_the_page(svg: str, name: str) -> str:
    """Return the bare <svg>, with ids that are unique on the page and with the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href")
    for stand_in, colour in _OF_THE_PAGE.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def interval_bar(axes: Axes, interval: tuple[float, float], y: float, colour: str, width_pt: float) -> None:
    """Draw an interval; the bar ends where the interval ends, with no cap beyond."""
    axes.plot(interval, [y, y], color=colour, linewidth=width_pt, alpha=0.5, solid_capstyle="butt")


def percent(axes: Axes, which: str) -> None:
    """Label an axis, "x" or "y", in percent of 1."""
    from matplotlib.ticker import PercentFormatter

    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1.0))


def short(name: str) -> str:
    """Return a name with at most 24 characters."""
    return name if len(name) <= 24 else name[:21] + "..."
