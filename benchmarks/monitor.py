"""How often `headstart monitor` raises a false alarm, and how soon it finds images of another kind.

To be run on a project whose `headstart run` has finished, `--project FOLDER`; the more images are held out, the longer
the streams (`split.test_fraction: 0.6`). Every stream draws its own half of the held-out images as those that are
known; the other half arrives in random order. Beside it stands the rule that is customary elsewhere: a classifier
tells the last 50 images from the known ones with an AUC above 0.55, looked at after every 10 images.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart.auditing.seen import Seen
from headstart.handover.model import NOVEL_ABOVE, load
from headstart.layout import Layout
from headstart.monitoring import batch, reference, scores, watch
from headstart.monitoring.ledger import Ledger
from headstart.monitoring.watch import FALSE_ALARM, Batch
from headstart.params_file import load as read_params

_WINDOW, _EVERY, _AUC = 50, 10, 0.55
_BEFORE = 30  # usual images before the change, in the second trial
Outputs = dict[str, np.ndarray]


def _jpeg(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=10)
    return Image.open(buffer).convert("RGB")


def _noise(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    values = np.asarray(image).astype(float) + draw.normal(0, 25, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _cast(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * np.array([1.3, 1.0, 0.7]), 0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "blur of 2 px": lambda image, _: image.filter(ImageFilter.GaussianBlur(2)),
    "colour cast": _cast,
    "noise of 25 levels": _noise,
    "JPEG 10": _jpeg,
    "inverted": lambda image, _: Image.fromarray(255 - np.asarray(image)),
    "turned by 30 degrees": lambda image, _: image.rotate(30, Image.Resampling.BILINEAR),
}


class Pool:
    """The model's answers to images, computed once: a stream is an order of rows."""

    def __init__(self, root: Path, n_images: int) -> None:
        layout = Layout.of(root, read_params(root / "params.yaml"))
        seen = Seen.of(layout)
        self.model = load(layout.model)
        held_out = np.random.default_rng(0).permutation(np.flatnonzero(seen.is_held_out))[:n_images]
        self.labels = seen.labels[held_out]
        pixels = seen.pixels(held_out)
        draw = np.random.default_rng(0)
        self.outputs = {"nothing": self._asked(pixels)}
        self.features = {"nothing": seen.embed(pixels)}
        for name, change in CHANGES.items():
            changed = np.stack([np.asarray(change(Image.fromarray(each), draw)) for each in pixels])
            self.outputs[name], self.features[name] = self._asked(changed), seen.embed(changed)
        known = self.reference(np.arange(len(self)))
        self.estimated = {
            name: batch.accuracy(each["probabilities"].max(1), known).accuracy for name, each in self.outputs.items()
        }
        self.accuracy = {
            name: float((each["probabilities"].argmax(1) == self.labels).mean()) for name, each in self.outputs.items()
        }

    def __len__(self) -> int:
        return len(self.labels)

    def _asked(self, pixels: np.ndarray) -> Outputs:
        parts = [self.model.outputs(pixels[row : row + 8]) for row in range(0, len(pixels), 8)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def reference(self, rows: np.ndarray) -> reference.Reference:
        """Return what is normal, by these images alone."""
        known = {name: array[rows] for name, array in self.outputs["nothing"].items()}
        return reference.of(known, self.labels[rows], self.model.abstain_below, NOVEL_ABOVE, "")

    def stream(self, usual: np.ndarray, changed: np.ndarray, how: str) -> Outputs:
        """Return the outputs for usual images and then for changed ones."""
        return {
            name: np.concatenate([array[usual], self.outputs[how][name][changed]])
            for name, array in self.outputs["nothing"].items()
        }


def first_alarm(ledger: Ledger, stream: Outputs) -> int | None:
    """Return the number of the image that raises the alarm, None if none does."""
    for row in range(len(stream["novelty"])):
        one = {name: array[row : row + 1] for name, array in stream.items()}
        ledger.add(one, [row.to_bytes(8, "little")], [""], "")
        if ledger.alarm:
            return row + 1
    return None


def by_auc(known: np.ndarray, stream: np.ndarray, seed: int) -> int | None:
    """Return the same for the rule: ridge regression in 5 folds on the features of the backbone."""
    for n_seen in range(2 * _EVERY, len(stream) + 1, _EVERY):
        window = stream[max(0, n_seen - _WINDOW) : n_seen]
        rows, sides = np.concatenate([known, window]), np.repeat([0, 1], [len(known), len(window)])
        telling = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0, class_weight="balanced"))
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        told = cross_val_predict(telling, rows, sides, cv=folds, method="decision_function")
        if roc_auc_score(sides, told) > _AUC:
            return n_seen
    return None


def _digests(n_images: int) -> list[bytes]:
    return [row.to_bytes(8, "little") for row in range(n_images)]


def halves(pool: Pool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the images that are known in a stream, and of those that arrive."""
    order = np.random.default_rng(seed).permutation(len(pool))
    return order[: len(order) // 2], order[len(order) // 2 :]


def false_alarms(pool: Pool, n_streams: int, n_of_rule: int) -> float:
    """Print how many streams of usual images raise an alarm; return the share at the default bound."""
    highest, n_each = [], len(pool) - len(pool) // 2
    for seed in range(n_streams):
        known, usual = halves(pool, seed)
        ledger = Ledger.begun(pool.reference(known), FALSE_ALARM, seed)
        ledger.add(pool.stream(usual, usual[:0], "nothing"), _digests(n_each), [""] * n_each, "")
        highest.append(ledger.evidence + np.log10(ledger.limit) - np.log10(len(ledger.bets)))
    share = {bound: float(np.mean(np.array(highest) >= -np.log10(bound))) for bound in (FALSE_ALARM, 0.05, 0.2)}
    lines = [
        [f"`headstart monitor`, bound {bound:.0%}", n_streams, n_each, f"{found:.1%}"] for bound, found in share.items()
    ]
    alarms = 0
    features = _reduced(pool)
    for seed in range(n_of_rule):
        known, usual = halves(pool, seed)
        alarms += by_auc(features["nothing"][known], features["nothing"][usual], seed) is not None
    lines.append(["AUC above 0.55", n_of_rule, n_each, f"{alarms / n_of_rule:.1%}"])
    table(["rule", "streams", "images each", "with a false alarm"], lines)
    return share[FALSE_ALARM]


def _reduced(pool: Pool) -> dict[str, np.ndarray]:
    """Return the features on 30 principal axes of the usual images."""
    usual = pool.features["nothing"].astype(np.float64)
    mean = usual.mean(0)
    axes = np.linalg.svd(usual - mean, full_matrices=False)[2][:30].T
    return {name: (each - mean) @ axes for name, each in pool.features.items()}


def delays(pool: Pool, n_streams: int, n_of_rule: int) -> None:
    """Print how many changed images pass until the alarm, at once and after some usual images."""
    features, lines = _reduced(pool), []
    for how in CHANGES:
        cells: list[object] = [how, f"{pool.accuracy[how]:.1%}", f"{pool.estimated[how]:.1%}"]
        for n_before in (0, _BEFORE):
            found = []
            for seed in range(n_streams):
                known, later = halves(pool, seed)
                ledger = Ledger.begun(pool.reference(known), FALSE_ALARM, seed)
                at = first_alarm(ledger, pool.stream(later[:n_before], later[n_before:], how))
                found.append(np.inf if at is None else at - n_before)
            cells.append(_told(found))
        found = []
        for seed in range(n_of_rule):
            known, later = halves(pool, seed)
            at = by_auc(features["nothing"][known], features[how][later], seed)
            found.append(np.inf if at is None else at)
        cells.append(_told(found))
        lines.append(cells)
        print(how, "done", file=sys.stderr)
    header = [
        "change",
        "accuracy",
        "estimated",
        "images until the alarm",
        f"after {_BEFORE} usual ones",
        "AUC above 0.55",
    ]
    table(header, lines)


def _told(found: list[float]) -> str:
    median, late = np.quantile(found, (0.5, 0.95), method="higher")
    words = ["never" if np.isinf(value) else f"{value:.0f}" for value in (median, late)]
    share = float(np.mean(np.isfinite(found)))
    return f"{words[0]} ({words[1]})" + ("" if share == 1 else f", {share:.0%} of streams")


def cost(pool: Pool) -> float:
    """Print what counting and comparing 1,000 images takes beside answering them; return its share."""
    known = pool.reference(np.arange(len(pool)))
    rows = np.arange(1000) % len(pool)
    images = Batch(
        {name: array[rows] for name, array in pool.outputs["nothing"].items()},
        [row.to_bytes(8, "little") for row in range(1000)],
        [""] * 1000,
    )
    image = np.zeros((1, 375, 500, 3), np.uint8)
    pool.model.outputs(image)
    began = time.perf_counter()
    for _ in range(50):
        pool.model.outputs(image)
    answering = (time.perf_counter() - began) * 20
    ledger = Ledger.begun(known, FALSE_ALARM, 0)
    began = time.perf_counter()
    n_counted = ledger.add(images.outputs, images.digests, images.names, "")
    watch.look(ledger, known, images, 0.0, NOVEL_ABOVE, "", n_counted)
    counting = time.perf_counter() - began
    table(
        ["1,000 images", "seconds"],
        [["the model, without reading files", answering], ["counting and comparing", counting]],
    )
    return counting / answering


def main() -> None:
    """Print all tables, and whether the targets are met."""
    given = arguments(__doc__, data=False, project=ROOT, images=300, streams=1000, delays=200, rule=100)
    print(f"{machine()}\n")
    pool = Pool(given.project.resolve(), given.images)
    right = f"{pool.accuracy['nothing']:.1%} right"
    print(f"{len(pool)} held-out images, {right}, half of them known; scores {', '.join(scores.SCORES)}")
    share = false_alarms(pool, given.streams, given.rule)
    delays(pool, given.delays, given.rule)
    overhead = cost(pool)
    result("monitor_false_alarms", share, "of streams", FALSE_ALARM, share <= FALSE_ALARM)
    result("monitor_cost", overhead, "of predicting", 0.1, overhead <= 0.1)


if __name__ == "__main__":
    main()
