"""Classes that overlap, and classes with too few held-out images to say much."""

from __future__ import annotations

import numpy as np

from headstart.auditing.folder import Few, Overlap
from headstart.auditing.seen import Seen
from headstart.base.intervals import wilson

_MIN_SHARE, _MIN_IMAGES = 0.02, 3  # of two classes that are taken for each other
_MAX_PAIRS = 20


def overlaps(seen: Seen) -> list[Overlap]:
    """Return the pairs of classes that are taken for each other most often in cross-validation."""
    known = seen.judged.is_known & ~seen.is_held_out
    labels, predicted = seen.labels[known], seen.judged.predicted(seen.labels)[known]
    sizes = np.bincount(labels, minlength=len(seen.classes))
    wrong = np.sort(np.stack([labels, predicted], 1)[labels != predicted], 1)
    pairs, counts = np.unique(wrong, axis=0, return_counts=True)
    found = [
        Overlap(
            label=seen.classes[one],
            other=seen.classes[other],
            n_images=int(n_images),
            share=round(float(n_images / (sizes[one] + sizes[other])), 6),
        )
        for (one, other), n_images in zip(pairs, counts, strict=True)
        if n_images >= _MIN_IMAGES
    ]
    worst = sorted((each for each in found if each.share >= _MIN_SHARE), key=lambda each: (-each.share, each.label))
    return worst[:_MAX_PAIRS]


def few(seen: Seen, width: float) -> list[Few]:
    """Return the classes whose accuracy on held-out images has a 95 % interval wider than `width`, the widest first.

    The interval is the one that the class would have with its accuracy in cross-validation.
    """
    known = seen.judged.is_known & ~seen.is_held_out
    right = (seen.judged.predicted(seen.labels) == seen.labels) & known
    n_classes = len(seen.classes)
    n_known, n_right, n_held_out = (
        np.bincount(seen.labels[some], minlength=n_classes).tolist() for some in (known, right, seen.is_held_out)
    )
    found = []
    for label, n_images in enumerate(n_held_out):
        interval = wilson(n_right[label] / n_known[label] if n_known[label] else 0.5, max(n_images, 1))
        if interval.high - interval.low > width:
            wide = round(interval.high - interval.low, 4)
            found.append(Few(label=seen.classes[label], n_images=n_images, width=wide))
    return sorted(found, key=lambda each: (-each.width, each.label))
