"""The plots of the report, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.report.drawing import INK, RIGHT, SOFT, WRONG, drawn, interval_bar, percent, short

if TYPE_CHECKING:
    from headstart.base.intervals import Interval
    from headstart.evaluation.metrics import Bin, RiskCoverage
    from headstart.evaluation.ranking import PrecisionRecall, Roc
    from headstart.onnx.head_folder import ForecastRecord

MAX_BARS = 40  # classes that a bar chart has room for
_RARE = 0.1  # coverage below which the risk-coverage curve may leave the plot
MAX_COLOURS = 18  # classes that colours can distinguish
POINTS = "points"  # suffix of the id of the group that holds the points of a map, in order
RINGS = "rings"  # the same for the rings around mistakes
LEVEL_SETS = {  # mark and colour of each set of levels that a head may read
    "last": ("D", SOFT),
    "stages": ("o", RIGHT),
    "upper half + last": ("v", WRONG),
    "stages + last": ("^", WRONG),
    "named": ("o", RIGHT),
    "of several": ("s", INK),
}


def comparison(rows: Sequence[tuple[str, float, Interval | None]]) -> str:
    """Return a plot of accuracies with their intervals; `rows`: name, accuracy, interval, this model first."""
    with drawn("comparison", (5.0, 0.5 + 0.34 * len(rows))) as (axes, done):
        for row, (_, accuracy, interval) in enumerate(rows):
            colour = SOFT if row else RIGHT
            if interval:
                interval_bar(axes, interval, row, colour, 4 if not row else 2)
            axes.plot([accuracy], [row], "o", color=colour, markersize=7 if not row else 5, clip_on=False)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        lowest = min(interval.low if interval else accuracy for _, accuracy, interval in rows)
        axes.set_xlim(max(0.0, lowest - 0.03), 1.005)
        percent(axes, "x")
        axes.grid(axis="x")
        return done()


def reliability(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Return the reliability diagram (DeGroot & Fienberg 1983) before and after calibration, if there is a before."""
    with drawn("reliability", (4.2, 3.6)) as (axes, done):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        n_images = sum(each.n_images for each in after)
        lines = ((before, WRONG, "--", "before calibration"), (after, RIGHT, "-", "as shipped"))
        for bins, colour, style, name in lines if before else lines[1:]:
            axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], style, color=colour, label=name)
            sizes = [6 + 90 * each.n_images / n_images for each in bins]
            axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], sizes, color=colour, zorder=3)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="accuracy")
        percent(axes, "x")
        percent(axes, "y")
        axes.grid()
        axes.legend(loc="upper left")
        return done()


def risk_coverage(curve: RiskCoverage, coverage: float, selective_accuracy: float | None) -> str:
    """Return the risk-coverage curve, with the point of the model's threshold if the model answers at all."""
    with drawn("risk-coverage", (4.2, 3.6)) as (axes, done):
        axes.step(curve.coverage, curve.risk, where="post", color=RIGHT)
        if selective_accuracy is not None:
            axes.plot([coverage], [1 - selective_accuracy], "o", color=WRONG, label="at the model's threshold")
            axes.legend(loc="upper left")
        axes.set(xlim=(0, 1.02), xlabel="share of images answered", ylabel="share of answers that are wrong")
        usual = curve.risk[curve.coverage >= _RARE]  # among few answers, one mistake is a large share
        axes.set_ylim(0, min(max(0.02, 1.3 * float(usual.max(initial=0))), 1.02))
        percent(axes, "x")
        percent(axes, "y")
        axes.grid()
        return done()


def set_sizes(sizes: np.ndarray) -> str:
    """Return a bar for each number of labels in a set, from 1 to the largest; `sizes` int [C + 1]: images of each."""
    from matplotlib.ticker import MaxNLocator

    largest, n_classes = int(np.flatnonzero(sizes).max()), len(sizes) - 1
    with drawn("set-sizes", (5.0, 2.2)) as (axes, done):
        axes.bar(range(1, largest + 1), sizes[1 : largest + 1], color=RIGHT, alpha=0.7, width=0.8)
        if largest <= MAX_BARS // 2:
            for number, count in enumerate(sizes[1 : largest + 1], 1):
                axes.annotate(f"{count:,}", (number, count), ha="center", va="bottom", fontsize=8, color=SOFT)
        axes.set_xlim(0.3, max(largest, min(n_classes, 3)) + 0.7)
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set(xlabel="labels in a set", ylabel="held-out images")
        axes.grid(axis="y")
        return done()


def roc(curve: Roc, answers: tuple[float, float], negative: str, positive: str) -> str:
    """Return the ROC curve; `answers`: the rates at which the model answers, of false and of true positives."""
    with drawn("roc", (4.2, 3.6)) as (axes, done):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=RIGHT, clip_on=False)
        axes.plot([answers[0]], [answers[1]], "o", color=RIGHT, markersize=8, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set(xlabel=f"{short(negative)} taken for {short(positive)}", ylabel=f"{short(positive)} found")
        percent(axes, "x")
        percent(axes, "y")
        axes.grid()
        return done()


def precision_recall(
    curves: Sequence[tuple[str, PrecisionRecall]], answers: Sequence[tuple[float, float | None]]
) -> str:
    """Return the curves of both classes; `answers`: recall and precision at which the model answers, of each."""
    with drawn("precision-recall", (4.2, 3.6)) as (axes, done):
        for (name, curve), (recall, precision), colour, style in zip(
            curves, answers, (WRONG, RIGHT), ("--", "-"), strict=True
        ):
            ends = np.append(0.0, curve.recall), np.append(curve.precision[:1], curve.precision)
            axes.step(*ends, style, where="pre", color=colour, label=short(name), clip_on=False)
            if precision is not None:
                axes.plot([recall], [precision], "o", color=colour, markersize=8, clip_on=False)
        lowest = min(float(curve.precision.min()) for _, curve in curves)
        axes.set(xlim=(0, 1), ylim=(max(0.0, lowest - 0.05), 1), xlabel="recall", ylabel="precision")
        percent(axes, "x")
        percent(axes, "y")
        axes.grid()
        axes.legend(loc="lower left")
        return done()


def class_balance(images_per_class: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> str:
    """Return the number of images of each class by split or, for very many classes, a histogram of these numbers."""
    if len(classes) > MAX_BARS:
        totals = [sum(counts[name] for counts in images_per_class.values()) for name in classes]
        with drawn("class-balance", (5.0, 2.6)) as (axes, done):
            axes.hist(totals, bins=30, color=RIGHT, alpha=0.7)
            axes.set(xlabel="images per class, in all splits", ylabel="classes")
            axes.grid(axis="y")
            return done()
    with drawn("class-balance", (5.0, 0.7 + 0.24 * len(classes))) as (axes, done):
        left = np.zeros(len(classes))
        for (split, counts), alpha in zip(images_per_class.items(), (0.9, 0.55, 0.25), strict=False):
            values = np.array([counts[name] for name in classes])
            axes.barh(range(len(classes)), values, left=left, color=RIGHT, alpha=alpha, label=split, height=0.7)
            left += values
        axes.set_yticks(range(len(classes)), [short(name) for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlabel("images")
        axes.grid(axis="x")
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        return done()


def learning_curve(points: Sequence[Mapping[str, Any]], forecast: Sequence[ForecastRecord]) -> str:
    """Return cross-validated accuracy by the number of training images, and its continuation.

    `points`: `learning_curve.Point`s.
    """
    with drawn("learning-curve", (5.0, 3.0)) as (axes, done):
        numbers = [point["n_images"] for point in points]
        for point in points:
            low, high = point["accuracy_low"], point["accuracy_high"]
            axes.plot([point["n_images"]] * 2, [low, high], color=RIGHT, linewidth=2, alpha=0.5, solid_capstyle="butt")
        axes.plot(numbers, [point["accuracy"] for point in points], "o-", color=RIGHT)
        more = [each.n_images for each in forecast]
        axes.fill_between(more, [e.low for e in forecast], [e.high for e in forecast], color=SOFT, alpha=0.15)
        axes.plot(more, [each.accuracy for each in forecast], "--", color=SOFT)
        axes.set_xscale("log")
        numbers += more[-1:]
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel="cross-validated accuracy")
        percent(axes, "y")
        axes.grid()
        return done()


def heads(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return accuracies by kind, a mark for each set of levels; `rows`: the best `heads.candidates.Candidate`s.

    The nested accuracy with its interval where it is known, else the cross-validated one with two standard errors.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    styles = {name: LEVEL_SETS[name] for name in LEVEL_SETS if any(row["levels"] == name for row in rows)}
    some_are_nested = any(row["nested_accuracy"] is not None for row in rows)
    with drawn("heads", (5.0, 0.8 + 0.42 * len(kinds))) as (axes, done):
        for kind_row, kind in enumerate(kinds):
            own = sorted(
                (row for row in rows if row["kind"] == kind), key=lambda row: list(styles).index(row["levels"])
            )
            for number, row in enumerate(own):
                y = kind_row + 0.18 * (number - (len(own) - 1) / 2)
                marker, colour = styles[row["levels"]]
                accuracy, low, high = row["nested_accuracy"], row["nested_low"], row["nested_high"]
                is_nested = accuracy is not None
                if not is_nested:
                    accuracy, margin = row["cv_accuracy"], 2 * row["cv_accuracy_se"]
                    low, high = max(accuracy - margin, 0.0), min(accuracy + margin, 1.0)
                interval_bar(axes, (low, high), y, colour, 2)
                size = 9 if row["chosen"] else 5
                fill = colour if is_nested or not some_are_nested else "none"
                axes.plot([accuracy], [y], marker, color=colour, markersize=size, markerfacecolor=fill)
        for name, (marker, colour) in styles.items():
            axes.plot([], [], marker, color=colour, markersize=5, label=name)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        percent(axes, "x")
        axes.grid(axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handletextpad=0.1, columnspacing=1)
        return done()


def history(lines: Sequence[Mapping[str, Any]], best_epoch: int) -> str:
    """Return the losses of fine-tuning by epoch."""
    from matplotlib.ticker import MaxNLocator

    with drawn("history", (5.0, 3.0)) as (axes, done):
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
    few = len(classes) <= MAX_COLOURS
    palette = class_colours()
    with drawn(name, (5.0, 4.0)) as (axes, done):
        faces = [palette[label] if few else RIGHT for label in labels]
        axes.scatter(places[:, 0], places[:, 1], s=20, c=faces, linewidths=0).set_gid(POINTS)
        wrong = places[~right]
        axes.scatter(wrong[:, 0], wrong[:, 1], s=60, c="none", edgecolors=INK, linewidths=1.2).set_gid(RINGS)
        if len(wrong):
            axes.scatter([], [], s=60, c="none", edgecolors=INK, linewidths=1.2, label="mistake")
        if few:
            for index, label in enumerate(classes):
                axes.scatter([], [], s=20, color=palette[index], label=short(label))
        if few or len(wrong):
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.1, labelspacing=0.3)
        axes.set(xticks=[], yticks=[])
        return done()


def class_colours() -> list[tuple[float, float, float]]:
    """Return the colours of classes, the strong ones first: Tableau's 20 without grey, which rings and text have."""
    import matplotlib

    tableau = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    return [colour for start in (0, 1) for colour in tableau[start::2] if max(colour) - min(colour) > 0.05]
