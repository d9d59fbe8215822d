"""How much sooner a head is good when a rule chooses the images to label, beside choosing at random.

To be run on a project whose `headstart run` has finished, `--project FOLDER`. A seed draws 30 % of all images to test
on and the first images to label; then rounds of equal size follow, each chosen as `headstart next` does by the head of
the round before, though no image is left out as a copy. The head is a logistic regression on the standardised features
of the level `last`, of one strength for all.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart.auditing.seen import Seen
from headstart.choosing.rules import RULES, Candidates, Rule, chosen
from headstart.layout import Layout
from headstart.params_file import load

_ROUNDS = 10
_TESTED = 0.3
_STRENGTH = 0.01  # C of scikit-learn, the inverse of the penalty


def head(rows: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """Return a fitted head."""
    return LogisticRegression(C=_STRENGTH, max_iter=300).fit(rows, labels)


def curve(rule: Rule, rows: np.ndarray, labels: np.ndarray, n_a_round: int, seed: int) -> list[float]:
    """Return the accuracy on the tested images after each round."""
    draw, n_classes = np.random.default_rng(seed), int(labels.max()) + 1
    ids = draw.permutation(len(labels))
    n_tested = round(_TESTED * len(labels))
    tested, pool = ids[:n_tested], ids[n_tested:]
    labelled = list(pool[:n_a_round])
    absent = set(range(n_classes)) - set(labels[labelled])  # a head needs each class once
    labelled += [int(next(row for row in pool if labels[row] == label)) for label in absent]
    found = []
    for number in range(_ROUNDS):
        scaler = StandardScaler().fit(rows[pool])
        fitted = head(scaler.transform(rows[labelled]), labels[labelled])
        found.append(float((fitted.predict(scaler.transform(rows[tested])) == labels[tested]).mean()))
        left = np.setdiff1d(pool, labelled)
        said = fitted.predict_proba(scaler.transform(rows[left]))
        candidates = Candidates(rows[left], said)
        labelled += left[chosen(rule, candidates, rows[labelled], n_a_round, seed * 100 + number).rows].tolist()
    return found


def main() -> None:
    """Print accuracy against labels for each rule, and its difference to random, with 95 % intervals over seeds."""
    given = arguments(__doc__, data=False, project=ROOT, seeds=10, labels=10)
    print(f"{machine()}\n")
    root = given.project.resolve()
    seen = Seen.of(Layout.of(root, load(root / "params.yaml")))
    rows = seen.rows[np.arange(len(seen))].astype(np.float64)
    curves: dict[Rule, np.ndarray] = {}
    for rule in RULES:
        curves[rule] = np.array([curve(rule, rows, seen.labels, given.labels, seed) for seed in range(given.seeds)])
        print(rule, "done", file=sys.stderr)
    shown = [1, 2, 4, 9]
    header = ["rule", *(f"{given.labels * (number + 1)} labels" for number in shown), "mean of rounds", "above random"]
    lines, best = [], -np.inf
    for rule, found in curves.items():
        gain = (found[:, 1:] - curves["random"][:, 1:]).mean(1)
        half = float(student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)
        best = max(best, gain.mean() - half) if rule != "random" else best
        told = (
            ""
            if rule == "random"
            else f"{100 * gain.mean():+.1f} ({100 * (gain.mean() - half):+.1f} to {100 * (gain.mean() + half):+.1f})"
        )
        lines.append(
            [rule, *(f"{found[:, number].mean():.1%}" for number in shown), f"{found[:, 1:].mean():.1%}", told]
        )
    table(header, lines)
    result("label_next_gain_of_the_best_rule_at_its_lower_bound", 100 * best, "points", 0.0, bool(best > 0))


if __name__ == "__main__":
    main()
