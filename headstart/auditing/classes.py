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
    known = ~np.isnan(seen.probabilities[:, 0]) & ~seen.is_held_out
    labels, predicted = seen.labels[known], seen.probabilities[known].argmax(1)
    n_classes = len(seen.classes)
    confusion = np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    mixed, sizes = confusion + confusion.T, confusion.sum(1)
    found = [
        Overlap(
            label=seen.classes[one],
            other=seen.classes[other],
            n_images=int(mixed[one, other]),
            share=round(float(mixed[one, other] / (sizes[one] + sizes[other])), 6),
        )
        for one, other in zip(*np.nonzero(np.triu(mixed, 1) >= _MIN_IMAGES), strict=True)
    ]
    worst = sorted((each for each in found if each.share >= _MIN_SHARE), key=lambda each: (-each.share, each.label))
    return worst[:_MAX_PAIRS]


def few(seen: Seen, width: float) -> list[Few]:
    """Return the classes whose accuracy on held-out images has a 95 % interval wider than `width`, the widest first.

    The interval is the one that the class would have with its accuracy in cross-validation.
    """
    known = ~np.isnan(seen.probabilities[:, 0]) & ~seen.is_held_out
    right = seen.probabilities[known].argmax(1) == seen.labels[known]
    counts = np.bincount(seen.labels[seen.is_held_out], minlength=len(seen.classes))
    found = []
    for label, n_images in enumerate(counts):
        own = right[seen.labels[known] == label]
        interval = wilson(float(own.mean()) if len(own) else 0.5, max(int(n_images), 1))
        if interval.high - interval.low > width:
            wide = round(interval.high - interval.low, 4)
            found.append(Few(label=seen.classes[label], n_images=int(n_images), width=wide))
    return sorted(found, key=lambda each: (-each.width, each.label))
