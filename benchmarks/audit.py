"""What the audit finds of what was planted: wrong labels, copies across splits, another source; and false alarms.

To be run on a project whose `dvc repro` has finished, `--project FOLDER`. Every draw is seeded by its number. The
images of the test split take part in the search for copies and for another source alone; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from PIL import Image, ImageFilter
from scipy import special
from sklearn.metrics import average_precision_score

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart.auditing import copies, duplicates, label_errors, neighbours, shift
from headstart.auditing.neighbours import unit, vote
from headstart.auditing.seen import Seen
from headstart.embedding import features
from headstart.heads import sweep
from headstart.heads.design import Source
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import level_sets
from headstart.layout import Layout
from headstart.params_file import load

_N_PLANTED, _N_SPLITS = 200, 200
_NOISE = (("uniform", 0.05), ("uniform", 0.1), ("uniform", 0.2), ("confusable", 0.1))
Rank = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # probabilities, votes, labels -> suspicion [N]


def _joint(probabilities: np.ndarray, votes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the suspicion by cleanlab's confident joint: what it flags first, by self-confidence."""
    flagged = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    suspicion = 1 - probabilities[np.arange(len(labels)), labels].astype(np.float64)
    suspicion[flagged] += 1
    return suspicion


RANKINGS: dict[str, Rank] = {
    "margin (ours)": lambda p, v, y: -label_errors.margin(p, y),
    "self-confidence (cleanlab's default)": lambda p, v, y: -get_label_quality_scores(y, p),
    "adjusted self-confidence": lambda p, v, y: -get_label_quality_scores(y, p, adjust_pred_probs=True),
    "confident joint": _joint,
    "10 nearest images": lambda p, v, y: -label_errors.margin(v, y),
    "margin of both": lambda p, v, y: -label_errors.margin(p * v / (p * v).sum(1, keepdims=True), y),
}


def labels(root: Path, n_seeds: int) -> None:
    """Print average precision and precision at k of each ranking, k the number of wrong labels."""
    params = load(root / "params.yaml")
    layout, values = Layout.of(root, params), params.train_head
    seen, cached = Seen.of(layout), features.opened(layout)
    known = np.flatnonzero(~seen.is_held_out)
    ids = [seen.images.image_ids[row] for row in known]
    rows, truth, n_classes = cached.read(ids), seen.labels[known], len(seen.classes)
    groups, last = seen.images.groups[known], seen.rows[known]
    near = neighbours.nearest(last, 10)
    confusable = _nearest_class(last, truth, n_classes)
    lines = []
    for kind, rate in _NOISE:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in RANKINGS}
        for seed in range(n_seeds):
            draw, given = np.random.default_rng(seed), truth.copy()
            wrong = draw.choice(len(truth), round(rate * len(truth)), replace=False)
            others = (truth[wrong] + draw.integers(1, n_classes, len(wrong))) % n_classes
            given[wrong] = confusable[truth[wrong]] if kind == "confusable" else others
            settings = sweep.Settings(
                list(KINDS.values()),
                level_sets(cached.record.levels, values.levels),
                values.strengths,
                values.folds,
                values.seed,
                values.memory_mb,
                is_nested=False,
            )
            selection = sweep.select(Source(rows, None, given, groups), n_classes, settings)
            probabilities = special.softmax(selection.out_of_fold, axis=1)
            votes, is_wrong = vote(near, given, n_classes), given != truth
            for name, rank in RANKINGS.items():
                suspicion = rank(probabilities, votes, given)
                first = np.argsort(-suspicion, kind="stable")[: len(wrong)]
                precision = float(is_wrong[first].mean())
                found[name].append((float(average_precision_score(is_wrong, suspicion)), precision))
        for name, scores in found.items():
            (mean, at_k), (error, _) = np.mean(scores, 0), np.std(scores, 0, ddof=1) / len(scores) ** 0.5
            lines.append([f"{kind} {rate:.0%}", name, f"{mean:.3f} ± {error:.3f}", f"{at_k:.3f}"])
    print(f"{len(truth)} labels, {n_seeds} seeds from 0; mean and standard error over seeds; recall at k is the same")
    table(["wrong labels", "ranking", "average precision", "precision at k"], lines)


def _nearest_class(rows: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    centres = np.stack([unit(rows)[truth == label].mean(0) for label in range(n_classes)])
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    np.fill_diagonal(apart, np.inf)
    found: np.ndarray = apart.argmin(1)
    return found


def _planted(pixels: np.ndarray, draw: np.random.Generator) -> tuple[str, np.ndarray]:
    """Return a copy of a kind and a strength that are drawn; calibration has fixed strengths."""
    strengths = {
        "cropped": lambda: copies.cropped(pixels, draw, draw.uniform(0.7, 0.97)),
        "compressed": lambda: copies.compressed(pixels, draw, int(draw.integers(15, 60))),
        "scaled": lambda: copies.scaled(pixels, draw, draw.uniform(0.35, 0.8)),
        "mirrored": lambda: copies.mirrored(pixels, draw),
        "lightened": lambda: copies.lightened(pixels, draw, draw.uniform(1.1, 1.4)),
        "all of it": lambda: copies.altered(pixels, draw),
    }
    kind = list(strengths)[int(draw.integers(len(strengths)))]
    return kind, strengths[kind]()


def planted(root: Path, n_seeds: int) -> None:
    """Print how many planted copies are found across splits, and which other pairs."""
    seen = Seen.of(Layout.of(root, load(root / "params.yaml")))
    n_images, lines, others = len(seen), [], set()
    for seed in range(n_seeds):
        draw = np.random.default_rng(seed)
        originals = np.sort(draw.choice(n_images, min(_N_PLANTED, n_images // 2), replace=False))
        made = [_planted(pixels, draw) for pixels in seen.pixels(originals)]
        pictures = np.stack([pixels for _, pixels in made])
        rows = np.concatenate([seen.rows[np.arange(n_images)], seen.backbone(pictures)])
        given = np.concatenate([seen.labels, seen.labels[originals]])

        def pixels(wanted: np.ndarray, pictures: np.ndarray = pictures) -> np.ndarray:
            found = np.empty((len(wanted), *pictures.shape[1:]), np.uint8)
            own = wanted < n_images
            found[own] = seen.pixels(wanted[own])
            found[~own] = pictures[wanted[~own] - n_images]
            return found

        near = neighbours.nearest(rows, 10)
        pairs, _ = duplicates.find(rows, given, len(seen.classes), near, pixels, seen.backbone, seed)
        told = {tuple(pair) for pair in pairs.rows.tolist()}
        hits = {(int(row), n_images + number) for number, row in enumerate(originals)}
        for kind in dict.fromkeys(kind for kind, _ in made):
            own = [
                pair
                for (name, _), pair in zip(made, sorted(hits, key=lambda each: each[1]), strict=True)
                if name == kind
            ]
            lines.append((kind, len(own), sum(pair in told for pair in own)))
        back = {n_images + number: int(row) for number, row in enumerate(originals)}
        others |= {tuple(sorted({back.get(one, one), back.get(other, other)})) for one, other in told - hits}
    kinds = dict.fromkeys(kind for kind, _, _ in lines)
    sums = [[kind, *(sum(line[at] for line in lines if line[0] == kind) for at in (1, 2))] for kind in kinds]
    n_all, n_found = (sum(each[at] for each in sums) for at in (1, 2))
    print(f"{n_all} planted copies, {n_seeds} seeds from 0")
    table(
        ["copies", "planted", "found", "recall"],
        [[*each, each[2] / each[1]] for each in [*sums, ["all", n_all, n_found]]],
    )
    print(f"{len(others)} other pairs of originals:")
    for pair in sorted(others):
        print("  ", *(seen.images.paths[row] for row in pair))
    result("audit_recall_of_copies", n_found / n_all, "", 0.95, n_found / n_all >= 0.95)


def _degraded(pixels: np.ndarray, how: str, draw: np.random.Generator) -> np.ndarray:
    if how == "blur":
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5)))
    if how == "colour cast":
        return (pixels * np.array([1.0, 0.9, 0.75])).round().astype(np.uint8)
    return copies.compressed(pixels, draw, 10)


def elsewhere(root: Path) -> None:
    """Print how often random halves are called different, and whether degraded images are."""
    params = load(root / "params.yaml")
    layout = Layout.of(root, params)
    seen, level = Seen.of(layout), params.audit.false_alarm
    cached = features.opened(layout)
    rows, given, groups = cached.read(seen.images.image_ids), seen.labels, seen.images.groups
    n_classes = len(seen.classes)
    (on_last,) = level_sets(cached.record.levels, "last")
    alarms = {"accuracy": 0, "features": 0, "either": 0}
    for seed in range(_N_SPLITS):
        held_out = np.zeros(len(seen), bool)
        held_out[np.random.default_rng(seed).choice(len(seen), round(0.3 * len(seen)), replace=False)] = True
        settings = sweep.Settings(
            [KINDS["ridge"]], [on_last], params.train_head.strengths, 5, seed, 4096, with_blend=False, is_nested=False
        )
        known = np.flatnonzero(~held_out)
        selection = sweep.select(Source(rows[known], None, given[known], groups[known]), n_classes, settings)
        right = np.empty(len(seen), bool)
        right[known] = selection.out_of_fold.argmax(1) == given[known]
        right[held_out] = selection.head.scores(rows[held_out][:, selection.columns]).argmax(1) == given[held_out]
        lower = shift.drop(right, given, groups, held_out).p_value <= level / 2
        apart = shift.two_sample(rows, seen.levels, given, groups, held_out, seed)
        differs = apart is not None and apart.p_value <= level / 2
        for name, is_alarm in (("accuracy", lower), ("features", differs), ("either", lower or differs)):
            alarms[name] += is_alarm
    print(f"false alarms in {_N_SPLITS} random splits at audit.false_alarm {level}: {alarms}")
    lines, held_out = [], seen.is_held_out
    test = np.flatnonzero(held_out)
    for how in ("nothing", "blur", "colour cast", "JPEG 10"):
        draw = np.random.default_rng(0)
        changed = rows.copy()
        if how != "nothing":
            changed[test] = seen.embed(np.stack([_degraded(each, how, draw) for each in seen.pixels(test)]))
        found = shift.two_sample(changed, seen.levels, given, groups, held_out, 0)
        lines.append([how, f"{found.auc:.3f} ({found.auc_low:.3f} to {found.auc_high:.3f})", found.p_value])
    table(["done to the test images", "AUC", "p"], lines)
    result("audit_false_alarms", alarms["either"] / _N_SPLITS, "", level, alarms["either"] / _N_SPLITS <= level)


def main() -> None:
    """Print all tables."""
    given = arguments(__doc__, data=False, project=str(ROOT), seeds=5, what=["labels", "copies", "elsewhere"])
    root = Path(given.project).resolve()
    print(machine())
    if "labels" in given.what:
        labels(root, given.seeds)
    if "copies" in given.what:
        planted(root, given.seeds)
    if "elsewhere" in given.what:
        elsewhere(root)


if __name__ == "__main__":
    main()
