"""What `adapt` gains on images of another domain, what it costs where there is none, and by which criterion.

Sets are the photographs of `--data` and scikit-learn's digits. A seed draws half of the images to learn from, a quarter
to adapt to, changed and without labels, and a quarter to test on, changed in the same way. `large` is a change that
costs the head as it is ten points or more. `--develop 1` takes other changes and other seeds: with those, and with them
alone, the settings of the methods and of the veto were found.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.harness import arguments, assign, machine, project, result, run, table
from benchmarks.monitor import CHANGES
from headstart.adapting.choice import NONE, choose
from headstart.adapting.criteria import CRITERIA
from headstart.adapting.methods import METHODS, Domains
from headstart.auditing.seen import Seen
from headstart.embedding import features
from headstart.heads import members, sweep
from headstart.heads.contract import Fitted
from headstart.heads.design import Source
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import level_sets
from headstart.heads.sweep import Settings
from headstart.layout import Layout
from headstart.params_file import load

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
DEFAULT = "reverse"  # adapt.choose_by
NOTHING, MIX = "no change", "another mix of classes"
_LARGE = 0.10
_RARE = 0.25  # of the images of the later half of the classes that stay, in another mix
_MEMORY_MB = 4096
_SETTLED, _DEVELOPING = 0, 100  # the first seed


def _coloured(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Return the picture between two drawn colours, in place of black and white."""
    dark, bright = draw.integers(0, 100, 3), draw.integers(155, 256, 3)
    share = np.asarray(image.convert("L"), float)[..., None] / 255
    return Image.fromarray((dark + share * (bright - dark)).astype(np.uint8))


def _salt(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    values, at = np.array(image), draw.random(image.size[::-1])
    values[at < 0.1], values[at > 0.9] = 0, 255
    return Image.fromarray(values)


def _coarse(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    small = image.resize((image.width // 8, image.height // 8), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


LISTED: dict[str, dict[str, Change]] = {
    "photographs": {name: CHANGES[name] for name in ("blur of 2 px", "colour cast", "noise of 25 levels", "JPEG 10")},
    "digits": {
        "inverted": CHANGES["inverted"],
        "coloured": _coloured,
        "turned by 30 degrees": CHANGES["turned by 30 degrees"],
    },
}
_OTHERS: dict[str, Change] = {
    "posterised": lambda image, _: ImageOps.posterize(image, 1),
    "solarised": lambda image, _: ImageOps.solarize(image, 100),
    "edges": lambda image, _: image.filter(ImageFilter.FIND_EDGES),
    "salt and pepper": _salt,
    "coarse": _coarse,
}
DEVELOPED: dict[str, dict[str, Change]] = {"photographs": _OTHERS, "digits": _OTHERS}


class Domain(NamedTuple):
    """A set of images in one look."""

    name: str
    features: np.ndarray  # float32 [N, all]
    is_mixed: bool = False  # whether half of the classes are rare in it


class Trial(NamedTuple):
    """The accuracies of one seed on one domain, 0..1."""

    by_method: dict[str, float]
    by_criterion: dict[str, float]
    chosen: dict[str, str]  # the method, by criterion
    seconds: dict[str, float]  # by criterion


class Set(NamedTuple):
    """The images of a set, in every look."""

    seen: Seen
    usual: np.ndarray  # float32 [N, all]
    domains: list[Domain]


def looked_at(root: Path, changes: dict[str, Change]) -> Set:
    """Return the features of the images of the project at `root`, as they are and changed."""
    for stage in ("validate", "split", "rank", "backbone", "transform", "embed"):
        run(root, "python", "-m", "tasks", stage)
    seen = Seen.of(Layout.of(root, load(root / "params.yaml")))
    pixels, draw = seen.pixels(np.arange(len(seen))), np.random.default_rng(0)
    usual = seen.embed(pixels)
    domains = [Domain(NOTHING, usual)]
    for name, change in changes.items():
        changed = np.stack([np.asarray(change(Image.fromarray(each), draw)) for each in pixels])
        domains.append(Domain(name, seen.embed(changed)))
        print(name, "embedded", file=sys.stderr)
    domains.append(Domain(MIX, usual, is_mixed=True))
    domains.append(Domain(f"{domains[1].name}, {MIX}", domains[1].features, is_mixed=True))
    return Set(seen, usual, domains)


def trials(of: Set, seed: int, domains: Sequence[Domain]) -> list[Trial]:
    """Return a trial for each domain, by one head."""
    labels, n_images = of.seen.labels, len(of.seen)
    order = np.random.default_rng(seed).permutation(n_images)
    learned, others, tested = (np.sort(part) for part in np.split(order, [n_images // 2, 3 * n_images // 4]))
    known = features.opened(of.seen.layout).record.levels
    rows = Source(of.usual[learned], None, labels[learned], np.arange(len(learned)))
    strengths = load(of.seen.layout.params).train_head.strengths
    settings = Settings(list(KINDS.values()), level_sets(known, "auto"), strengths, 5, 0, _MEMORY_MB, is_nested=False)
    selected = sweep.select(rows, len(of.seen.classes), settings)
    columns = selected.columns
    parts = [each._replace(columns=np.searchsorted(columns, each.columns)) for each in selected.members]

    def fit(some: np.ndarray, own: np.ndarray) -> Fitted:
        source = Source(some.astype(np.float32), None, own, np.arange(len(own)))
        fitted = members.fit(parts, source, len(of.seen.classes), selected.training, memory_mb=_MEMORY_MB)
        return fitted.calibrated(selected.temperature, selected.shift)

    levels = [np.flatnonzero((columns >= each.start) & (columns < each.start + each.width)) for each in known]
    slices = [slice(int(each[0]), int(each[-1]) + 1) for each in levels if len(each)]
    found = []
    for domain in domains:
        to, test = (_rarer(labels, part, seed) if domain.is_mixed else part for part in (others, tested))
        target = domain.features[to][:, columns].astype(np.float64)
        both = Domains(of.usual[learned][:, columns].astype(np.float64), labels[learned], target, selected.head, fit)
        right = _right(domain.features[test][:, columns], labels[test])
        by_method = {name: right(method(both).whole) for name, method in METHODS.items()}
        chosen, seconds = {}, {}
        for criterion in CRITERIA:
            began = time.perf_counter()
            chosen[criterion] = choose(both, slices, np.arange(len(learned)), [*METHODS], criterion, seed).method
            seconds[criterion] = time.perf_counter() - began
        found.append(Trial(by_method, {name: by_method[way] for name, way in chosen.items()}, chosen, seconds))
    return found


def _rarer(labels: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    stays = np.random.default_rng(seed).random(len(rows)) < np.where(labels[rows] > labels.max() // 2, _RARE, 1.0)
    return rows[stays]


def _right(rows: np.ndarray, labels: np.ndarray) -> Callable[[Fitted], float]:
    return lambda head: float((head.scores(rows.astype(np.float64)).argmax(1) == labels).mean())


def main() -> None:
    """Print accuracy by method and by criterion, and what the choice gains and loses."""
    given = arguments(__doc__, seeds=5, splits=20, develop=0, sets=["photographs", "digits"])
    changes, first = (DEVELOPED, _DEVELOPING) if given.develop else (LISTED, _SETTLED)
    every: dict[tuple[str, str], list[Trial]] = {}
    for name in given.sets:
        with project() as root:
            if name == "digits":
                run(root, "python", "-m", "tasks", "sample")
            else:
                assign(root, data__root=given.data)
            of = looked_at(root, changes[name])
            for seed in range(first, first + max(given.seeds, given.splits)):
                some = [
                    domain
                    for domain in of.domains
                    if seed - first < (given.splits if domain.name == NOTHING else given.seeds)
                ]
                for domain, trial in zip(some, trials(of, seed, some), strict=True):
                    every.setdefault((name, domain.name), []).append(trial)
                print(name, "seed", seed, "done", file=sys.stderr, flush=True)
    _show_accuracies(every)
    _show_criteria(every)
    print(machine())
    gains = {where: _gains(of, DEFAULT) for where, of in every.items()}
    large = [gain for where, of in every.items() if _is_large(every, where[0], of) for gain in gains[where]]
    usual = [gain for where, of in gains.items() if where[1] == NOTHING for gain in of]
    gain = float(np.mean(large)) if large else 0.0
    result("adapt_mean_gain_under_a_large_shift", 100 * gain, "points", 5.0, gain >= 0.05)
    result("adapt_largest_loss_without_a_shift", -100 * min(usual), "points", 1.0, min(usual) >= -0.01)


def _gains(of: Sequence[Trial], criterion: str) -> list[float]:
    return [each.by_criterion[criterion] - each.by_method[NONE] for each in of]


def _is_large(every: dict[tuple[str, str], list[Trial]], name: str, of: Sequence[Trial]) -> bool:
    usual = every[name, NOTHING][: len(of)]
    return bool(np.mean([a.by_method[NONE] - b.by_method[NONE] for a, b in zip(usual, of, strict=True)]) >= _LARGE)


def _show_accuracies(every: dict[tuple[str, str], list[Trial]]) -> None:
    lines = []
    for (name, domain), of in every.items():
        means = [np.mean([each.by_method[method] for each in of]) for method in METHODS]
        chosen = np.mean([each.by_criterion[DEFAULT] for each in of])
        n_adapted = sum(each.chosen[DEFAULT] != NONE for each in of)
        is_large = " (large)" if _is_large(every, name, of) else ""
        cells = [f"{mean:.1%}" for mean in (*means, chosen)]
        lines.append([name, domain + is_large, len(of), *cells, f"{n_adapted} of {len(of)}"])
    table(["set", "change", "trials", *METHODS, "chosen", "adapted"], lines)


def _show_criteria(every: dict[tuple[str, str], list[Trial]]) -> None:
    lines = []
    for criterion in CRITERIA:
        of_large, of_small, usual, seconds = [], [], [], []
        for (name, domain), of in every.items():
            into = usual if domain == NOTHING else of_large if _is_large(every, name, of) else of_small
            into += _gains(of, criterion)
            seconds += [each.seconds[criterion] for each in of]
        everything = np.array([*of_large, *of_small, *usual])
        worse = everything[everything < 0]
        lost = f"{100 * -worse.mean():.1f}, {100 * -worse.min():.1f} at most" if len(worse) else "nothing"
        means = [f"{100 * np.mean(some):+.1f}" if some else "" for some in (of_large, of_small, usual)]
        lines.append([criterion, *means, f"{len(worse)} of {len(everything)}", lost, f"{np.median(seconds):.1f}"])
    header = ["chosen by", "gain, large shift", "small shift", "no shift", "worse than none", "by points", "seconds"]
    table(header, lines)


if __name__ == "__main__":
    main()
