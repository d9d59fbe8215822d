"""The plots of the report, by matplotlib, as SVG that takes its colours and its font from the page.

The same values give the same bytes. Text stays text: it can be searched, and it shrinks with the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from headstart.evaluation.metrics import Bin, Interval, RiskCoverage

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
MAX_BARS = 40  # classes that a bar chart has room for
_RARE = 0.1  # coverage below which the risk-coverage curve may leave the plot
MAX_COLOURS = 20  # classes that colours can distinguish
POINTS = "points"  # suffix of the id of the group that holds the points of a map, in order
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


def comparison(rows: Sequence[tuple[str, float, Interval | None]]) -> str:
    """Return a plot of accuracies with their intervals; `rows`: name, accuracy, interval, this model first."""
    with _drawn("comparison", (5.0, 0.5 + 0.34 * len(rows))) as (axes, done):
        for row, (_, accuracy, interval) in enumerate(rows):
            colour = SOFT if row else RIGHT
            if interval:
                axes.plot(interval, [row, row], color=colour, linewidth=4 if not row else 2, alpha=0.5)
            axes.plot([accuracy], [row], "o", color=colour, markersize=7 if not row else 5)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        lowest = min(interval.low if interval else accuracy for _, accuracy, interval in rows)
        axes.set_xlim(max(0.0, lowest - 0.03), 1.005)
        _percent(axes, "x")
        axes.grid(axis="x")
        return done()


def reliability(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Return the reliability diagram (DeGroot & Fienberg 1983) before and after calibration."""
    with _drawn("reliability", (4.2, 3.6)) as (axes, done):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        n_images = sum(each.n_images for each in after)
        lines = ((before, WRONG, "--", "before calibration"), (after, RIGHT, "-", "as shipped"))
        for bins, colour, style, name in lines:
            axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], style, color=colour, label=name)
            sizes = [6 + 90 * each.n_images / n_images for each in bins]
            axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], sizes, color=colour, zorder=3)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="accuracy")
        _percent(axes, "x")
        _percent(axes, "y")
        axes.grid()
        axes.legend(loc="upper left")
        return done()


def risk_coverage(curve: RiskCoverage, coverage: float, selective_accuracy: float | None) -> str:
    """Return the risk-coverage curve, with the point of the model's threshold if the model answers at all."""
    with _drawn("risk-coverage", (4.2, 3.6)) as (axes, done):
        axes.step(curve.coverage, curve.risk, where="post", color=RIGHT)
        if selective_accuracy is not None:
            axes.plot([coverage], [1 - selective_accuracy], "o", color=WRONG, label="at the model's threshold")
            axes.legend(loc="upper left")
        axes.set(xlim=(0, 1.02), xlabel="share of images answered", ylabel="share of answers that are wrong")
        usual = curve.risk[curve.coverage >= _RARE]  # among few answers, one mistake is a large share
        axes.set_ylim(0, max(0.02, 1.3 * float(usual.max(initial=0))))
        _percent(axes, "x")
        _percent(axes, "y")
        axes.grid()
        return done()


def class_balance(images_per_class: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> str:
    """Return the number of images of each class by split or, for very many classes, a histogram of these numbers."""
    if len(classes) > MAX_BARS:
        totals = [sum(counts[name] for counts in images_per_class.values()) for name in classes]
        with _drawn("class-balance", (5.0, 2.6)) as (axes, done):
            axes.hist(totals, bins=30, color=RIGHT, alpha=0.7)
            axes.set(xlabel="images per class, in all splits", ylabel="classes")
            axes.grid(axis="y")
            return done()
    with _drawn("class-balance", (5.0, 0.7 + 0.24 * len(classes))) as (axes, done):
        left = np.zeros(len(classes))
        for (split, counts), alpha in zip(images_per_class.items(), (0.9, 0.55, 0.25), strict=False):
            values = np.array([counts[name] for name in classes])
            axes.barh(range(len(classes)), values, left=left, color=RIGHT, alpha=alpha, label=split, height=0.7)
            left += values
        axes.set_yticks(range(len(classes)), [_short(name) for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlabel("images")
        axes.grid(axis="x")
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        return done()


def learning_curve(points: Sequence[Mapping[str, Any]]) -> str:
    """Return cross-validated accuracy by the number of training images; `points`: `learning_curve.Point`s."""
    with _drawn("learning-curve", (5.0, 3.0)) as (axes, done):
        numbers = [point["n_images"] for point in points]
        accuracies = np.array([point["accuracy"] for point in points])
        spread = np.array([point["accuracy_std"] for point in points])
        axes.fill_between(numbers, accuracies - spread, np.minimum(accuracies + spread, 1), color=RIGHT, alpha=0.15)
        axes.plot(numbers, accuracies, "o-", color=RIGHT)
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel="cross-validated accuracy")
        _percent(axes, "y")
        axes.grid()
        return done()


def history(lines: Sequence[Mapping[str, Any]], best_epoch: int) -> str:
    """Return the losses of fine-tuning by epoch."""
    from matplotlib.ticker import MaxNLocator

    with _drawn("history", (5.0, 3.0)) as (axes, done):
        for name, colour, style in (("train_loss", SOFT, "--"), ("val_log_loss", RIGHT, "-")):
            known = [(line["epoch"], line[name]) for line in lines if line[name] is not None]
            axes.plot(*zip(*known, strict=True), style, marker="o", markersize=3, color=colour, label=name)
        axes.axvline(best_epoch, color=RIGHT, linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel="loss, nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        axes.legend()
        return done()


def feature_map(name: str, places: np.ndarray, labels: np.ndarray, right: np.ndarray, classes: Sequence[str]) -> str:
    """Return a map of images at `places` float [N, 2], coloured by `labels` int [N]; a ring marks a mistake."""
    import matplotlib

    few = len(classes) <= MAX_COLOURS
    palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    with _drawn(name, (5.0, 4.0)) as (axes, done):
        faces = [palette[label] if few else RIGHT for label in labels]
        rings = (1.6 * ~right).tolist()
        points = axes.scatter(places[:, 0], places[:, 1], s=20, c=faces, edgecolors=WRONG, linewidths=rings)
        points.set_gid(POINTS)
        if few:
            for index, label in enumerate(classes):
                axes.scatter([], [], s=20, color=palette[index], label=_short(label))
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.1, labelspacing=0.3)
        axes.set(xticks=[], yticks=[])
        return done()


class _drawn:  # noqa: N801 used as a function
    """A figure of a size in inches: `with _drawn(...) as (axes, done)`, and `done()` returns its SVG."""

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


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(PercentFormatter(1.0))


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:21] + "..."
