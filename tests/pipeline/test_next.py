"""`headstart next`: from images without labels to a manifest that the next run learns from."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import expect

from tests.support.browser import opened
from tests.support.orchestration import environment
from tests.support.processes import started
from tests.support.projects import Project, write_photographs


@pytest.fixture(scope="module")
def finished(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project with 13 images without labels, one of them a copy of a labelled one but for a byte."""
    project = base.copy(tmp_path_factory.mktemp("next") / "project")
    write_photographs(project.root / "new", 6, first=200)
    first = sorted((project.root / "photos" / "ants").iterdir())[0]
    (project.root / "new" / "copy.jpg").write_bytes(first.read_bytes() + b"0")
    project.must("python", "-m", "tasks", "set", "data.unlabelled=new")
    project.must("dvc", "repro", "unlabelled")
    return project


@pytest.fixture
def unlabelled(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path / "project")


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened_file:
        return list(csv.DictReader(opened_file))


def test_a_list_is_filled_in_and_the_next_run_learns_from_it(unlabelled: Project) -> None:
    said = unlabelled.must("headstart", "next", "-n", "5", "--list", "--rule", "badge")
    assert "5 of 13 images without labels, chosen by badge" in said
    file = unlabelled.root / "next" / "next.csv"
    rows = lines_of(file)
    assert len(rows) == 5
    assert {row["guess"] for row in rows} <= {"ants", "bees"}
    assert all(row["label"] == "" for row in rows)
    assert (unlabelled.root / "next" / "sheet.jpg").stat().st_size > 1000
    for row in rows[:4]:
        row["label"] = row["path"].split("/")[0]
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, rows[0].keys(), delimiter=";")  # as some spreadsheets have it
        writer.writeheader()
        writer.writerows(rows)
    said = unlabelled.must("headstart", "next", "--from", "next/next.csv")
    assert "4 new labels; labelled.csv has all 28 labelled images, the new in train" in said
    unlabelled.must("headstart", "next", "-n", "13", "--list")
    again = {row["image_id"] for row in lines_of(file)}
    assert again and not again & {row["image_id"] for row in rows[:4]}
    before = pl.read_parquet(unlabelled.root / "artifacts" / "splits.parquet")
    unlabelled.must("headstart", "run", "--data", "labelled.csv", "unlabelled", "split")
    after = pl.read_parquet(unlabelled.root / "artifacts" / "splits.parquet")
    known = before.join(after, on="image_id", suffix="_after")
    assert (known["split"] == known["split_after"]).all()
    new = after.join(before, on="image_id", how="anti")
    assert new["split"].to_list() == ["train"] * 4
    record = json.loads((unlabelled.root / "artifacts" / "unlabelled" / "unlabelled.json").read_text())
    assert (record["n_images"], record["n_labelled_before"]) == (9, 4)


def test_a_copy_of_a_labelled_image_is_not_asked_for(unlabelled: Project) -> None:
    said = unlabelled.must("headstart", "next", "-n", "13", "--list")
    assert "copy.jpg" not in {row["path"] for row in lines_of(unlabelled.root / "next" / "next.csv")}
    assert "nearly the same as others are left out" in said
    for file in (unlabelled.root / "new").rglob("2*.jpg"):
        file.unlink()
    unlabelled.must("dvc", "repro", "unlabelled")
    done = unlabelled.run("headstart", "next", "--list")
    assert done.returncode == 1
    assert "all 1 images that rank highest of 1 are nearly the same as labelled ones" in done.stdout


def test_images_are_labelled_on_a_page_by_keyboard(unlabelled: Project) -> None:
    command = [sys.executable, "-m", "headstart", "next", "-n", "4", "--no-browser"]
    with started(
        command,
        cwd=unlabelled.root,
        env=environment(unlabelled),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        lines = []
        while not (found := re.search(r"http://\S+", "".join(lines))):
            lines.append(line := running.stdout.readline())
            assert line, lines
        with opened() as page:
            page.goto(found[0])
            expect(page.locator("#question")).to_contain_text("What does it show?")
            expect(page.locator("figure img")).to_have_count(1)
            first, place = page.locator("#buttons button").first, page.locator("#place")
            expect(first).to_contain_text("It is ")
            expect(place).to_have_text("1 of 4")
            page.keyboard.press("Enter")
            expect(page.locator("#said")).to_contain_text(": it is ")
            expect(place).to_have_text("1 of 3")  # until then a key is not taken: its picture has not been seen
            page.keyboard.press("a")
            expect(place).to_have_text("1 of 2")
            expect(page.locator("#said")).to_contain_text(": it is ")
            page.keyboard.press("l")
            page.keyboard.type("wasps")
            page.keyboard.press("Enter")
            expect(page.locator("#new-class")).to_be_visible()
            page.keyboard.press("Enter")
            expect(page.locator("#said")).to_contain_text("wasps")
            expect(place).to_have_text("1 of 1")
            page.keyboard.press("d")
            expect(page.locator("#done")).to_be_visible()
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(30) == 0
    decided = lines_of(unlabelled.root / "next" / "decided.csv")
    assert sorted(row["decision"] for row in decided) == ["change"] * 3 + ["drop"]
    unlabelled.must("headstart", "run", "--set", "validate.min_images=3", "--data", "labelled.csv", "unlabelled")
    assert unlabelled.run("headstart", "next", "--from", "next/next.csv").stdout.startswith("next: no image has a new")
    assert "3 new labels; labelled.csv has all 27 labelled images" in rest
    written = lines_of(unlabelled.root / "labelled.csv")
    guess = {row["path"]: (row["guess"], row["second"]) for row in lines_of(unlabelled.root / "next" / "next.csv")}
    new = {row["path"]: row["label"] for row in written if row["path"].startswith("new/")}
    labels = [new.get(f"new/{path}") for path in guess]
    (first_guess, _), (_, second_best), *_ = guess.values()
    assert labels == [first_guess, second_best, "wasps", None]


def test_without_images_to_choose_from_it_says_what_to_do(project: Project) -> None:
    done = project.run("headstart", "next", "--list")
    assert done.returncode == 1
    assert "there are no images without labels" in done.stdout
    assert "headstart run --set data.unlabelled=photos-2026" in done.stdout
    done = project.run("headstart", "next", "-n", "0")
    assert done.returncode == 2
