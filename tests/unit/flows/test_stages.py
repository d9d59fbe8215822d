from __future__ import annotations

from flows.stages import direct


def test_an_edge_that_a_path_of_others_stands_for_is_not_drawn() -> None:
    above: dict[str, set[str]] = {}
    assert direct("validate", set(), above) == set()
    assert direct("backbone", set(), above) == set()
    assert direct("split", {"validate"}, above) == {"validate"}
    assert direct("embed", {"validate", "split", "backbone"}, above) == {"split", "backbone"}
    assert direct("train_head", {"validate", "split", "backbone", "embed"}, above) == {"embed"}
