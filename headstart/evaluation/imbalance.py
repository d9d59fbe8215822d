"""Whether classes differ so much in size that accuracy says little, and what to say of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNEVEN = 4.0  # images of the largest class for each of the smallest: of two classes, one has a fifth of the images


def ratio(counts: np.ndarray) -> float:
    """Return how many images the largest class has for each of the smallest, by the images of each class, int [C]."""
    return float(counts.max() / max(counts.min(), 1))


def warning(classes: Sequence[str], counts: np.ndarray, majority_accuracy: float) -> str | None:
    """Return why the headline is balanced accuracy, None where accuracy will do.

    `counts` int [C]: images of train and val. `majority_accuracy`: of always answering the most frequent class.
    """
    if ratio(counts) < UNEVEN:
        return None
    most, least = int(counts.argmax()), int(counts.argmin())
    return (
        f"classes differ in size: '{classes[most]}' has {counts[most]:,} images in train and val, '{classes[least]}'"
        f" has {counts[least]:,}. Always answering '{classes[most]}' would be right on {majority_accuracy:.2%} of the"
        " held-out images, so the headline is balanced accuracy, the mean recall of the classes;"
        f" always answering one class has {1 / len(classes):.2%} of it. To favour rare classes, set"
        " train_head.select_by, class_weight or logit_adjustment."
    )
