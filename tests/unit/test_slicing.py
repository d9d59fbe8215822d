from __future__ import annotations

from collections import Counter

from headstart.slicing import MAX_VALUES, Facts, slices_of


def facts(*rows: dict[str, str]) -> list[Facts]:
    return [Facts(f"{number:064x}", tuple(row.items())) for number, row in enumerate(rows)]


def test_a_fact_with_few_values_makes_a_slice_of_each() -> None:
    table, notes = slices_of(facts({"camera": "front", "site": "Oslo"}, {"camera": "rear"}, {"site": "Rome"}))
    assert notes == []
    assert [row[1:] for row in table.iter_rows()] == [
        ("camera", "front"),
        ("camera", "rear"),
        ("site", "Oslo"),
        ("site", "Rome"),
    ]


def test_what_is_the_same_everywhere_or_different_everywhere_makes_none_and_is_named() -> None:
    table, notes = slices_of(facts(*({"source": "x", "remark": f"remark {n}"} for n in range(MAX_VALUES + 1))))
    assert len(table) == 0
    assert notes == [
        "source is the same for all images, and makes no slices",
        "remark has 25 values, more than 24, and makes no slices",
    ]


def test_many_dates_are_cut_to_months_and_more_to_years() -> None:
    days = [{"date": f"2024-{month:02}-{day:02}"} for month in range(1, 13) for day in range(1, 4)]
    table, notes = slices_of(facts(*days))
    assert set(table["value"]) == {f"2024-{month:02}" for month in range(1, 13)}
    assert notes == ["date has 36 dates, which are cut to months"]
    months = [{"date": f"20{year}:{month:02}:01 10:00:00"} for year in range(10, 15) for month in range(1, 13)]
    assert set(slices_of(facts(*months))[0]["value"]) == {f"20{year}" for year in range(10, 15)}


def test_many_numbers_are_cut_to_quarters() -> None:
    table, notes = slices_of(facts(*({"lux": str(n / 2)} for n in range(100))))
    assert set(Counter(table["value"]).values()) <= {25, 26, 24}
    assert "up to 12.5" not in notes[0]
    assert notes == ["lux has 100 numbers, which are cut to quarters"]
    assert len(set(table["value"])) == 4
