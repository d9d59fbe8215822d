"""Accuracy against milliseconds, with the front of those that no other beats in both."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from headstart.ranking.folder import Entry, RankingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (6.4, 3.6)  # inches
_RIGHT = 0.55  # of the width; beyond, there is more room for names on the left


class Colours(NamedTuple):
    """Of the winner, of the others, and of what cannot win."""

    winner: str
    others: str
    barred: str


_OF_PNG = Colours("#1a7f37", "#3b3b3b", "#b42318")


def front(entries: Sequence[Entry]) -> list[Entry]:
    """Return those that saw all images and may win, and that none of these is both faster and more accurate than."""
    found: list[Entry] = []
    for each in sorted(_comparable(entries), key=lambda entry: (entry.milliseconds, -entry.accuracy)):
        if not found or each.accuracy > found[-1].accuracy:
            found.append(each)
    return found


def draw(axes: Axes, record: RankingRecord, colours: Colours) -> None:
    """Draw every candidate with the 95 % interval of its accuracy, and the front as a line."""
    steps = front(record.entries)
    axes.plot(
        [each.milliseconds for each in steps],
        [each.accuracy for each in steps],
        drawstyle="steps-post",
        color=colours.winner,
        linewidth=1,
        linestyle=":",
    )
    slowest = max(each.milliseconds for each in record.entries)
    for each in record.entries:
        is_winner = each.label == record.winner
        colour = colours.winner if is_winner else colours.barred if each.obstacles else colours.others
        at = each.milliseconds
        axes.plot([at, at], [each.accuracy_low, each.accuracy_high], color=colour, alpha=0.5, linewidth=2)
        hollow = {"markerfacecolor": "none"} if each.is_out else {}
        axes.plot([at], [each.accuracy], "D" if is_winner else "o", color=colour, markersize=6, **hollow)  # type: ignore[arg-type]
        note = f" ({each.n_images} images)" if each.is_out else ""
        axes.annotate(
            each.label + note,
            (at, each.accuracy),
            xytext=(-5, 5) if at > _RIGHT * slowest else (5, 5),
            ha="right" if at > _RIGHT * slowest else "left",
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    from matplotlib.ticker import PercentFormatter

    axes.margins(y=0.08)
    axes.set_xlim(0, 1.06 * slowest)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"milliseconds an image, {record.threads} thread")
    axes.set_ylabel("accuracy in cross-validation")
    axes.grid(visible=True, linewidth=0.4)


def png(record: RankingRecord) -> bytes:
    """Return the picture for Prefect's page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=120, layout="constrained")
    draw(figure.add_subplot(), record, _OF_PNG)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _comparable(entries: Sequence[Entry]) -> list[Entry]:
    return [each for each in entries if not each.is_out and not each.obstacles]
