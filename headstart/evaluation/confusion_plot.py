"""The confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

_MAX_NAMED = 30  # with more classes, their names do not fit


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Return a PNG of int64 [C, C]: labels down, predictions across; shades are shares of a row, numbers are counts."""
    from matplotlib.figure import Figure

    n_classes = len(classes)
    few = n_classes <= _MAX_NAMED
    side = 2.5 + (0.42 * n_classes if few else 6)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if few else "antialiased")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if few:
        axes.set_xticks(range(n_classes), classes, rotation=90)
        axes.set_yticks(range(n_classes), classes)
        for row, column in np.argwhere(confusion):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(confusion[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
