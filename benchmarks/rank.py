"""Regret of choosing a backbone: accuracy lost against the best candidate, on images that took no part in the choice.

Each set of images is divided many times. On one part a way of choosing names a candidate; on the other, the head of
each candidate that was fitted on the first part is scored. The best candidate is the one with the highest mean
accuracy over all divisions, so chance in a single one flatters nobody. Sets are the photographs of `--data`,
scikit-learn's digits, and sets made of these photographs and of nothing: turned by quarters, blurred, drawn shapes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.stats import weightedtau

from benchmarks.harness import arguments as parsed
from benchmarks.harness import assign, machine, project, result, run, table
from headstart import params_file
from headstart.base import dataset
from headstart.base.intervals import Z
from headstart.base.paired import advantage
from headstart.heads.sweep import Selection
from headstart.images.deep import ALL_BITS
from headstart.layout import Layout
from headstart.params import Params
from headstart.ranking import score
from headstart.ranking.candidates import Candidate, prepared
from headstart.ranking.embedding import Embedder
from headstart.ranking.parts import growing
from headstart.ranking.racing import race
from headstart.ranking.score import Images
from headstart.store.workers import tell_nobody

# Published top-1 accuracy on ImageNet: of timm's tf_efficientnet_lite*, and of torchvision's mobilenet_v2.
IMAGENET = {
    "tf_efficientnet_lite2": 77.46,
    "tf_efficientnet_lite1": 76.64,
    "tf_efficientnet_lite0": 74.84,
    "mobilenet_v2": 71.88,
}
RANDOM = ("mobilenet_v3_small", "shufflenet_v2_x0_5")
LEARNED = 0.6  # share of the images that a choice looks at
_SIDE = 96
_LOSSES = ("cross-validation, raced", "cross-validation, log loss", "cross-validation, accuracy")
_ALONE = ("kNN", "LogME", "H-score")


class Trial(NamedTuple):
    """One division of a set."""

    right: np.ndarray  # bool [K, test images], by candidate
    images: np.ndarray  # int, their numbers
    figures: Mapping[str, np.ndarray]  # way of choosing -> float [K], the higher the better
    seen: np.ndarray  # int [K]: images that the race showed each
    n_learned: int


def main() -> None:
    """Print tables of regret by way of choosing and set, and one line of JSON for the regret of ours."""
    given = parsed(__doc__, divisions=3, sets=["photographs", "digits", "turned", "shapes", "blurred"])
    trials: dict[str, list[Trial]] = {}
    with project() as root:
        for name in given.sets:
            began = time.perf_counter()
            folder = root / "sets" / name
            MAKERS[name](given.data, folder)
            found, labels, costs = _of_set(root, folder, given.divisions)
            trials[name] = found
            print(f"{name}: {given.divisions} divisions in {time.perf_counter() - began:.0f} s", flush=True)
            _show_candidates(name, found, labels, costs)
    pretrained = np.array([label in IMAGENET for label in labels])
    for words, among in (("all candidates", np.ones(len(labels), bool)), ("pretrained ones alone", pretrained)):
        _show_regret(words, trials, labels, among)
    print(machine())


def _of_set(root: Path, folder: Path, n_divisions: int) -> tuple[list[Trial], list[str], list[Candidate]]:
    candidates = [*IMAGENET, *(f"{{name: {name}, weights: random}}" for name in RANDOM)]
    assign(root, data__root=folder, rank__backbones=f"[{', '.join(candidates)}]", export__licences="any")
    for stage in ("validate", "split"):
        run(root, "python", "-m", "tasks", stage)
    values = params_file.load(root / "params.yaml")
    layout = Layout.of(root, values)
    data = dataset.read(layout)
    images = data.of(*dataset.SPLITS)
    found = prepared(values.rank, values.export, values.transform.fit, layout, root / "candidates" / folder.name)
    features = []
    for each in found:
        embedder = Embedder.of(each, values.embed, keep_pixels=True, layout=layout, bits=ALL_BITS)
        features.append(embedder(images.where, tell_nobody))
    whole = Images(images.labels, images.groups, len(data.classes))
    divisions = [_divided(whole, seed) for seed in range(n_divisions)]
    trials = [_trial(found, features, whole, learned, values) for learned in divisions]
    return trials, [each.label for each in found], found


def _divided(images: Images, seed: int) -> np.ndarray:
    """Return sorted numbers of the images to learn from: each class in proportion, groups whole."""
    n_learned = round(LEARNED * len(images.labels))
    return growing(images.labels, images.groups, n_learned, 5, seed)[-1]


def _trial(
    candidates: list[Candidate], features: list[np.ndarray], images: Images, learned: np.ndarray, values: Params
) -> Trial:
    held = np.setdiff1d(np.arange(len(images.labels)), learned)
    some = Images(images.labels[learned], images.groups[learned], images.n_classes)
    known: dict[tuple[int, int], Selection] = {}

    def scored(number: int, part: np.ndarray) -> score.Scored:
        rows = Images(some.labels[part], some.groups[part], some.n_classes)
        if (number, len(part)) not in known:
            levels = candidates[number].record.levels
            known[number, len(part)] = score.selection(features[number][learned][part], rows, levels, values.train_head)
        return score.scored(known[number, len(part)], rows, values.train_head.select_by)

    everything, everybody = np.arange(len(learned)), range(len(candidates))
    parts = growing(some.labels, some.groups, len(learned), values.train_head.folds, values.rank.seed)
    raced = race(len(candidates), parts, some.groups, lambda number, part: scored(number, part).values, set(everybody))
    whole = [scored(number, everything) for number in everybody]
    last = [score.last_of(features[n][learned], candidates[n].record.levels) for n in everybody]
    alone = [score.alone(each, some) for each in last]
    log_loss = np.array([-each.log_loss for each in whole])
    figures = {
        _LOSSES[0]: np.array([-np.inf if each.is_out else -each.values.mean() for each in raced]),
        _LOSSES[1]: log_loss,
        _LOSSES[2]: np.array([each.accuracy for each in whole]),
        **{name: np.array([each[place] for each in alone]) for place, name in enumerate(_ALONE)},
    }
    right = [_right(known[n, len(learned)], features[n][held], images.labels[held]) for n in everybody]
    return Trial(np.stack(right), held, figures, np.array([each.n_images for each in raced]), len(learned))


def _right(chosen: Selection, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which of the held images the head that was fitted on the others names correctly, bool [n]."""
    right: np.ndarray = chosen.head.scores(features[:, chosen.columns]).argmax(axis=1) == labels
    return right


def _show_candidates(name: str, trials: list[Trial], labels: list[str], found: list[Candidate]) -> None:
    rows = []
    for number, each in enumerate(found):
        accuracy = np.mean([trial.right[number].mean() for trial in trials])
        in_races = np.mean([trial.seen[number] / trial.n_learned for trial in trials])
        rows.append(
            [
                labels[number],
                f"{accuracy:.2%}",
                *(float(np.mean([trial.figures[way][number] for trial in trials])) for way in (*_LOSSES[1:], *_ALONE)),
                each.measured.milliseconds,
                each.megabytes,
                f"{in_races:.0%}",
            ]
        )
    header = ["candidate", "held-out accuracy", "log loss, -", "accuracy", *_ALONE, "ms", "MB", "images in races"]
    print(f"\n{name}: {len(trials[0].images)} of {trials[0].n_learned + len(trials[0].images)} images held out")
    table(header, rows)
    time_of = np.array([each.measured.milliseconds for each in found])
    saved = np.mean([1 - (time_of @ trial.seen) / (time_of.sum() * trial.n_learned) for trial in trials])
    same = np.mean([trial.figures[_LOSSES[0]].argmax() == trial.figures[_LOSSES[1]].argmax() for trial in trials])
    print(
        f"{name}: the race saved {saved:.0%} of the time in networks; the winner was that without a race in {same:.0%}"
    )


def _show_regret(words: str, trials: Mapping[str, list[Trial]], labels: list[str], among: np.ndarray) -> None:
    """Print the regret of each way of choosing, in points, on each set and in the mean."""
    means = {name: np.mean([trial.right.mean(axis=1) for trial in of], axis=0) for name, of in trials.items()}
    rows, ours = [], None
    ways: list[str] = [*_LOSSES, *_ALONE, "ImageNet accuracy", "constant list", "any, in the mean"]
    for way in ways:
        cells, taus, total, variance = [], [], 0.0, 0.0
        for name, of in trials.items():
            others = [means[other] for other in trials if other != name]
            figures = [_figures(way, trial, labels, others) for trial in of]
            mean, se = _regret(of, figures, np.where(among, means[name], -1).argmax(), among)
            cells.append(f"{100 * mean:.2f} ± {100 * Z * se:.2f}")
            total, variance = total + mean / len(trials), variance + (se / len(trials)) ** 2
            if figures[0] is not None:
                taus += [_tau(means[name][among], each[among]) for each in figures if each is not None]
        if way == _LOSSES[0]:
            ours = total
        told = f"{np.mean(taus):.2f}" if taus else ""
        rows.append([way, *cells, f"{100 * total:.2f} ± {100 * Z * variance**0.5:.2f}", told])
    print(f"\nregret in points of accuracy, ± 95 %, {words}: {', '.join(np.array(labels)[among])}")
    table(["way of choosing", *trials, "mean", "weighted tau"], rows)
    if ours is not None:
        result(f"regret_of_ranked_{words.split()[0]}", 100 * ours, "points", None, None)


def _figures(way: str, trial: Trial, labels: list[str], others: list[np.ndarray]) -> np.ndarray | None:
    if way == "ImageNet accuracy":
        return np.array([IMAGENET.get(label, 0.0) for label in labels])
    if way == "constant list":  # the order of the mean accuracy on the other sets
        return np.mean(others, axis=0) if others else np.array([IMAGENET.get(label, 0.0) for label in labels])
    return trial.figures.get(way)


def _regret(trials: list[Trial], figures: list[np.ndarray | None], best: int, among: np.ndarray) -> tuple[float, float]:
    """Return the mean over divisions of the accuracy of the best less that of the chosen, and its standard error.

    An image is held out in several divisions, so images are the clusters.
    """
    lost, images = [], []
    for trial, each in zip(trials, figures, strict=True):
        if each is None:
            chosen = trial.right[among].mean(axis=0)
        else:
            chosen = trial.right[int(np.where(among, each, -np.inf).argmax())].astype(float)
        lost.append(trial.right[best] - chosen)
        images.append(trial.images)
    differences = np.concatenate(lost)
    found = advantage(differences, np.zeros(len(differences)), np.concatenate(images))
    return found.mean, found.standard_error


def _tau(accuracies: np.ndarray, figures: np.ndarray) -> float:
    finite = np.where(np.isfinite(figures), figures, figures[np.isfinite(figures)].min() - 1)
    return float(weightedtau(accuracies, finite).statistic)


# The sets


def _photographs(data: Path, folder: Path) -> None:
    for number, (label, image) in enumerate(_each(data)):
        _write(folder / label / f"{number:04d}.jpg", image)


def _digits(data: Path, folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(path)


def _turned(data: Path, folder: Path) -> None:
    """Each photograph once, its centre square turned by 0, 90, 180 or 270 degrees: by how much is its class."""
    turns = np.random.default_rng(0).integers(0, 4, 10_000)
    for number, (_, image) in enumerate(_each(data)):
        _write(folder / f"{90 * turns[number]}" / f"{number:04d}.jpg", _square(image).rotate(90 * int(turns[number])))


def _blurred(data: Path, folder: Path) -> None:
    """Each photograph once, blurred by one of three radii: by which is its class."""
    which = np.random.default_rng(1).integers(0, 3, 10_000)
    for number, (_, image) in enumerate(_each(data)):
        small = _square(image).resize((224, 224))
        radius = (0.6, 0.9, 1.2)[which[number]]
        _write(folder / f"radius {radius}" / f"{number:04d}.jpg", small.filter(ImageFilter.GaussianBlur(radius)))


def _shapes(data: Path, folder: Path) -> None:
    """Polygons of 3 to 7 corners on noise, of any colour, size, place and turn: the number of corners is the class."""
    random = np.random.default_rng(2)
    for number in range(500):
        corners = 3 + number % 5
        noise = random.integers(0, 200, (12, 12, 3), np.uint8)
        image = Image.fromarray(noise).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        radius, turn = random.uniform(0.2, 0.42) * _SIDE, random.uniform(0, 360)
        at = random.uniform(radius, _SIDE - radius, 2)
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        ImageDraw.Draw(image).regular_polygon((*at, radius), corners, turn, fill=colour)
        path = folder / f"{corners} corners" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "photographs": _photographs,
    "digits": _digits,
    "turned": _turned,
    "blurred": _blurred,
    "shapes": _shapes,
}


def _each(data: Path) -> Iterator[tuple[str, Image.Image]]:
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            yield path.parent.name, Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)


if __name__ == "__main__":
    main()
