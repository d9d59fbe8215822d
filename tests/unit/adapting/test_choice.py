from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from headstart.adapting import criteria, mix
from headstart.adapting.choice import FEWEST, Choice, choose
from headstart.adapting.criteria import CRITERIA, OF_SOURCE
from headstart.adapting.methods import METHODS, Domains
from tests.support.domains import accuracy, alike, domains, mixed

EVERYTHING = list(METHODS)


def chosen(of: Domains, methods: list[str] = EVERYTHING, choose_by: str = "reverse") -> Choice:
    return choose(of, [slice(12)], np.arange(len(of.labels)), methods, choose_by, 0)


def test_a_shift_is_undone() -> None:
    of, truth = domains()
    found = chosen(of)
    assert found.method in METHODS and found.method != "none"
    assert accuracy(found.adapted.whole, of.target, truth) > 0.9 > 0.6 > accuracy(of.head, of.target, truth)
    assert found.p_value == 0.001 and found.auc > 0.9  # type: ignore[operator]
    assert [each.method for each in found.figures] == [name for name in METHODS if name != "label_shift"]
    best = next(each for each in found.figures if each.method == found.method)
    assert best.gain > 2.3 * best.standard_error > 0
    assert f"{found.method} is better than none by more than chance" in found.why


def test_where_nothing_has_changed_nothing_is_adapted() -> None:
    for seed in range(1, 11):
        of, _ = alike(seed=seed)
        found = chosen(of)
        assert found.method == "none" and found.adapted.whole is of.head, seed
        assert {each.method for each in found.figures} <= {"none", "label_shift"}  # features were not moved


def test_another_mix_alone_moves_no_features() -> None:
    of, truth = alike(n_target=450)
    of = replace(of, target=of.target[mixed(truth, 15)])
    found = chosen(of)
    assert {each.method for each in found.figures} == {"none", "label_shift"}
    assert "so only another mix of classes was tried" in found.why


def test_label_shift_is_not_tried_where_images_look_otherwise() -> None:
    of, _ = domains()
    found = chosen(of, ["label_shift"])
    assert (found.method, found.figures) == ("none", ())
    assert "adapt.methods moves no features" in found.why


def test_a_better_score_that_may_be_chance_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    of, _ = domains()
    n_images = len(of.labels)

    def by_chance(domains: Domains, tried: dict[str, object]) -> dict[str, np.ndarray]:
        draw = np.random.default_rng(0)
        return {name: draw.normal(0.1 * (name != "none"), 1, n_images) for name in tried}

    monkeypatch.setattr("headstart.adapting.choice.CRITERIA", {"reverse": by_chance})
    found = chosen(of)
    assert found.method == "none" and max(each.gain for each in found.figures) > 0
    assert "no way to adapt is better than none by more than chance: the best" in found.why


def test_few_images_are_not_adapted_to() -> None:
    of, _ = domains()
    found = chosen(replace(of, target=of.target[: FEWEST - 1]))
    assert (found.method, found.p_value) == ("none", None)
    assert found.why == "19 images without labels are too few to adapt to: 20 or more are needed."
    few = replace(of, source=of.source[:6], labels=of.labels[:6])
    assert "too few images with labels" in chosen(few).why


def test_another_mix_is_told_beside_a_shift_and_allowed_for() -> None:
    of, truth = domains(240, 450)
    some = mixed(truth, 15)
    of, truth = replace(of, target=of.target[some]), truth[some]
    told = mix.shares(of)
    assert told is not None
    np.testing.assert_allclose(told, np.bincount(truth) / len(truth), atol=0.06)
    found = chosen(of)
    assert "their mix of classes is another one, which was allowed for" in found.why
    assert accuracy(found.adapted.whole, of.target, truth) > 0.9


def test_the_same_mix_is_not_taken_for_another() -> None:
    assert mix.shares(domains()[0]) is None


def test_a_mix_that_cannot_be_told_is_not_told() -> None:
    of, _ = domains()
    of = replace(of, target=np.random.default_rng(0).normal(size=of.target.shape))  # no classes in it
    assert mix.shares(of) is None


def test_weights_give_the_mix_that_is_wanted() -> None:
    labels, wanted = np.arange(300) % 3, np.array([0.6, 0.3, 0.1])
    found = mix.weights(labels, wanted)
    np.testing.assert_allclose(np.bincount(labels, found) / 300, wanted, atol=0.01)
    assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_has_a_figure_for_each_image(criterion: str) -> None:
    of, _ = domains()
    found = CRITERIA[criterion](of, {name: METHODS[name](of) for name in ("none", "standardise")})
    n_images = len(of.labels) if criterion in OF_SOURCE else len(of.target)
    assert {values.shape for values in found.values()} == {(n_images,)}
    assert all(np.isfinite(values).all() for values in found.values())


def test_the_way_back_ends_where_it_began_if_the_way_there_was_right() -> None:
    of, _ = domains()
    found = criteria.reverse(of, {name: METHODS[name](of) for name in ("none", "standardise")})
    assert found["standardise"].mean() > 0.9 > found["none"].mean()


def test_without_a_change_importance_is_the_held_out_likelihood() -> None:
    of, truth = alike(n_target=600)
    found = criteria.importance(of, {"none": METHODS["none"](of)})["none"].mean()
    likelihood = log_softmax(of.head.scores(of.target), axis=1)[np.arange(600), truth].mean()
    assert found == pytest.approx(likelihood, abs=0.05)


def test_density_is_the_logarithm_of_how_many_are_answered_alike() -> None:
    of, _ = alike(n_target=150)
    of = replace(of, head=of.head.calibrated(1e-3))  # sure of everything
    counts = np.bincount(of.head.scores(of.target).argmax(1))
    found = criteria.density(of, {"none": METHODS["none"](of)})["none"]
    assert found.mean() == pytest.approx((counts * np.log(counts - 1)).sum() / 150, abs=0.01)
