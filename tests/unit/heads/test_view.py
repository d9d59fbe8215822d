"""Which candidate is chosen, for scores of held-out images that are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from headstart.heads import blend
from headstart.heads.criteria import CRITERIA
from headstart.heads.crossval import Division, Family
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import LevelSet
from headstart.heads.view import EVERYTHING, Name, Scores, View
from tests.support.heads import source_of

N, N_CLASSES, N_FOLDS = 400, 4, 4
LABELS = np.arange(N) % N_CLASSES
LEVELS = {
    "last": LevelSet("last", ("last",), np.arange(10)),
    "wide": LevelSet("wide", ("a", "b", "last"), np.arange(30)),
    "a": LevelSet("a", ("a",), np.arange(10, 20)),
    "b": LevelSet("b", ("b",), np.arange(20, 30)),
}


def drawn(skill: float, seed: int, knows: Sequence[int] = range(N_CLASSES)) -> np.ndarray:
    """Return scores float32 [N, C] of a head of some skill at the classes that it knows."""
    random = np.random.default_rng(seed)
    skills = skill * np.isin(LABELS, knows)
    scores: np.ndarray = random.normal(size=(N, N_CLASSES)) + skills[:, None] * np.eye(N_CLASSES)[LABELS]
    return scores.astype(np.float32)


def view(
    of: Mapping[Name, Sequence[np.ndarray]],
    groups: np.ndarray | None = None,
    part: int = EVERYTHING,
    criterion: str = "log_loss",
) -> View:
    """Return a view of families that have these scores, one strength each, the strongest first."""
    source = source_of(np.zeros((N, 30), np.float32), LABELS, groups)
    division = Division(source, N_CLASSES, np.arange(N), np.arange(N) // N_CLASSES % N_FOLDS, is_nested=True)
    scores = {}
    for (kind, levels), strengths in of.items():
        family = Family(KINDS[kind], LEVELS[levels], tuple(2.0**-row for row in range(len(strengths))))
        scores[family.name] = Scores(family, np.broadcast_to(np.stack(strengths), (N_FOLDS + 1, *np.shape(strengths))))
    return View(division, scores, part, criterion, np.zeros(N_CLASSES))


def chosen(of: Mapping[Name, Sequence[np.ndarray]], with_blend: bool = False) -> Name:
    seen = view(of)
    return seen.simplest(seen.candidates(with_blend)).name


def test_the_best_is_chosen_where_it_is_clearly_the_best() -> None:
    good, bad = drawn(3, 0), drawn(1, 1)
    assert chosen({("softmax", "last"): [bad], ("mlp", "last"): [good]}) == ("mlp", "last")
    assert chosen({("softmax", "last"): [bad], ("softmax", "wide"): [good]}) == ("softmax", "wide")
    assert chosen({("softmax", "last"): [bad], ("knn", "last"): [bad], ("svm", "last"): [good]}) == ("svm", "last")


def test_one_gemm_is_chosen_where_chance_does_not_tell_it_from_what_is_more() -> None:
    one, other = drawn(2, 0), drawn(2, 1)
    for first, second in ((one, other), (other, one)):
        assert chosen({("mlp", "last"): [first], ("softmax", "wide"): [second]}) == ("softmax", "wide")
        assert chosen({("mlp", "last"): [first], ("knn", "last"): [second]}) == ("mlp", "last")


def test_fewer_features_are_chosen_where_chance_does_not_tell_them_from_more() -> None:
    one, other = drawn(2, 0), drawn(2, 1)
    for first, second in ((one, other), (other, one)):
        assert chosen({("softmax", "wide"): [first], ("svm", "last"): [second]}) == ("svm", "last")
        assert chosen({("softmax", "last"): [first], ("svm", "last"): [second]}) == ("softmax", "last")
        assert chosen({("mlp", "wide"): [first], ("knn", "last"): [second]}) == ("knn", "last")


def test_the_error_is_that_of_groups() -> None:
    good = drawn(2, 0)
    bad = drawn(0, 1)
    one, other = good.copy(), good.copy()
    one[:60], other[60:80] = bad[:60], bad[60:80]  # either is worse in a group
    of = {("ridge", "last"): [one], ("ridge", "wide"): [other]}
    groups = np.arange(N)
    groups[:60], groups[60:80] = 0, 1
    alone, together = view(of), view(of, groups)
    assert alone.simplest(alone.candidates(False)).name == ("ridge", "wide")
    assert together.simplest(together.candidates(False)).name == ("ridge", "last")


def test_the_best_strength_of_a_family_is_its_candidate_and_in_a_tie_the_stronger() -> None:
    good, bad = drawn(3, 0), drawn(1, 1)
    seen = view({("ridge", "last"): [bad, good, good.copy(), bad]})
    assert seen.best(("ridge", "last")).members[0].strength == 0.5
    assert [each.members[0].strength for each in seen.each_strength(("ridge", "last"))] == [1, 0.5, 0.25, 0.125]
    assert seen.best(("ridge", "last")) is seen.best(("ridge", "last"))


def test_scores_are_calibrated_by_a_temperature_of_the_images_in_view() -> None:
    good = drawn(3, 0)
    wild, plain = (view({("ridge", "last"): [scores]}).best(("ridge", "last")) for scores in (5 * good, good))
    assert wild.temperature == pytest.approx(5 * plain.temperature, rel=1e-4)
    assert np.allclose(wild.scores, plain.scores, atol=1e-3)


def test_a_settled_candidate_is_that_of_its_temperature() -> None:
    seen = view({("ridge", "last"): [5 * drawn(1, 0)]})
    before = seen.best(("ridge", "last"))
    after = seen.settled(before)
    assert after.calibration is not None
    assert after.calibration.outcome == "fitted"
    assert after.temperature == pytest.approx(before.temperature, rel=0.02)  # but for caution
    assert np.allclose(after.scores * after.temperature, 5 * drawn(1, 0), atol=1e-5)
    assert after.figure == pytest.approx(CRITERIA["log_loss"](after.scores, LABELS).mean())


def test_a_temperature_is_tried_on_heads_that_learned_from_more_than_those_it_was_fitted_on() -> None:
    name = ("ridge", "last")
    seen = view({name: [drawn(2, 0)]})
    assert seen.settled(seen.best(name)).temperature < 0.6
    of = np.array(seen.scores[name].of)
    for fold in range(N_FOLDS):
        of[fold][:, seen.division.fold_of != fold] *= 8  # heads without two folds are much surer than those without one
    other = replace(seen, scores={name: Scores(seen.scores[name].family, of)}, _known={})
    found = other.settled(other.best(name))
    assert found.calibration is not None
    assert found.calibration.outcome == "no better than none"
    assert found.temperature == 1
    of[:N_FOLDS] = 0  # they were not fitted
    alone = other.settled(other.best(name))
    assert alone.calibration is not None
    assert alone.calibration.outcome == "fitted"


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_figure_is_that_of_the_criterion(criterion: str) -> None:
    best = view({("ridge", "last"): [drawn(1, 0)]}, criterion=criterion).best(("ridge", "last"))
    assert best.figure == pytest.approx(CRITERIA[criterion](best.scores, LABELS).mean())


def test_the_criterion_decides() -> None:
    sure_and_often_wrong, unsure_and_right = drawn(2, 0), drawn(4, 1)
    right = unsure_and_right.argmax(1) == LABELS
    unsure_and_right[~right] *= 1000  # where it is wrong, it is very sure
    of = {("ridge", "last"): [sure_and_often_wrong, unsure_and_right]}
    best = {name: view(of, criterion=name).best(("ridge", "last")).members[0].strength for name in CRITERIA}
    assert best == {"log_loss": 1, "accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5}


def test_heads_that_make_up_for_each_other_are_blended() -> None:
    of = {
        ("ridge", "last"): [drawn(3, 0, [0, 1])],
        ("prototype", "wide"): [drawn(3, 1, [2, 3])],
        ("mlp", "last"): [drawn(1, 2)],
    }
    assert chosen(of) != ("blend", "of several")
    assert chosen(of, with_blend=True) == ("blend", "of several")
    seen = view(of)
    blended = seen.candidates(True)[-1]
    assert blended.is_linear
    assert {member.kind for member in blended.members} == {"ridge", "prototype"}
    assert sum(member.weight for member in blended.members) == pytest.approx(1)
    assert [member.temperature for member in blended.members] == [
        seen.best((member.kind, "wide" if member.kind == "prototype" else "last")).temperature
        for member in blended.members
    ]


def test_the_weights_of_a_fold_are_those_of_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    of = {("ridge", "last"): [drawn(3, 0, [0, 1])], ("prototype", "wide"): [drawn(3, 1, [2, 3])]}
    seen = view(of)
    asked: list[int] = []
    own = blend.weights

    def telling(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        asked.append(len(labels))
        return own(scores, labels)

    monkeypatch.setattr(blend, "weights", telling)
    blended = seen.candidates(True)[-1]
    assert asked == [N] + [N - N // N_FOLDS] * N_FOLDS
    parts = np.stack([seen.best(("ridge", "last")).scores, seen.best(("prototype", "wide")).scores])
    for fold in range(N_FOLDS):
        held_out = seen.division.fold_of == fold
        weights = own(parts[:, ~held_out], LABELS[~held_out])
        expected = np.einsum("m,mnc->nc", weights, parts[:, held_out]) / blended.temperature
        assert np.allclose(blended.scores[held_out], expected)


def test_one_head_is_no_blend() -> None:
    good, bad = drawn(3, 0), drawn(0, 1)
    for of in ({("ridge", "last"): [good]}, {("ridge", "last"): [good], ("mlp", "last"): [good]}):
        assert "blend" not in {each.name[0] for each in view(of).candidates(True)}
    assert "blend" not in {
        each.name[0] for each in view({("ridge", "last"): [good], ("softmax", "last"): [bad]}).candidates(True)
    }


def test_a_single_head_is_chosen_before_a_blend_that_is_no_better() -> None:
    of = {(kind, "last"): [drawn(2, 0) + 0.1 * drawn(0, seed)] for seed, kind in enumerate(("ridge", "lda"), 1)}
    assert "blend" in {each.name[0] for each in view(of).candidates(True)}
    assert chosen(of, with_blend=True) == ("ridge", "last")


def test_costly_kinds_are_tried_on_the_best_levels_of_closed_forms_and_on_last() -> None:
    middling, good, bad = drawn(2, 0), drawn(2.1, 1), drawn(0.5, 2)
    of = {
        ("ridge", "last"): [middling],
        ("ridge", "a"): [good],
        ("ridge", "b"): [bad],
        ("softmax", "b"): [bad],
        ("mlp", "a"): [good],
    }
    assert view(of).levels_for_costly_kinds == {"last", "a"}
    assert [each.name for each in view(of).candidates(False)] == [
        ("ridge", "last"),
        ("ridge", "a"),
        ("ridge", "b"),
        ("mlp", "a"),
    ]
    of[("ridge", "last")] = [bad]
    assert view(of).levels_for_costly_kinds == {"a"}
    assert view({("softmax", "last"): [good], ("mlp", "b"): [bad]}).levels_for_costly_kinds == {"last", "b"}


def test_a_view_without_a_fold_does_not_look_at_it() -> None:
    good, bad = drawn(3, 0), drawn(1, 1)
    hidden = np.arange(N) // N_CLASSES % N_FOLDS == 2
    turned = np.where(hidden[:, None], bad, good)
    seen, other = (view({("ridge", "last"): [scores], ("svm", "wide"): [bad]}, part=2) for scores in (good, turned))
    one, two = (each.simplest(each.candidates(True)) for each in (seen, other))
    assert (one.name, one.temperature, one.figure) == (two.name, two.temperature, two.figure)
    assert one.scores.tobytes() == two.scores.tobytes()
    assert len(one.scores) == N - hidden.sum()
    assert np.allclose(seen.hidden_scores(one), good[hidden] / one.temperature)
    assert np.allclose(other.hidden_scores(one), bad[hidden] / one.temperature)


def test_hidden_scores_of_a_blend_are_the_weighted_sum_of_its_members() -> None:
    one, other = drawn(3, 0, [0, 1]), drawn(3, 1, [2, 3])
    seen = view({("ridge", "last"): [one], ("prototype", "wide"): [other]}, part=1)
    blended = seen.candidates(True)[-1]
    hidden = seen.hidden
    shares = {member.kind: member.weight / member.temperature for member in blended.members}
    expected = (shares["ridge"] * one[hidden] + shares["prototype"] * other[hidden]) / blended.temperature
    assert np.allclose(seen.hidden_scores(blended), expected)
