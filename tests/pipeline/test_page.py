"""Prefect's page of a run, as a person sees it in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tasks.__main__ import STAGES
from tests.support.browser import WAIT_MS, opened
from tests.support.orchestration import Api, flow, run_in_its_slow_stage
from tests.support.projects import Project


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with opened(is_ours=False) as page:
        yield page
        folder = Path(os.environ.get("HEADSTART_SCREENSHOTS", tmp_path))
        page.screenshot(path=folder / "last.png")


def states_on(page: Page, api: Api, run_id: str, n_stages: int) -> dict[str, str]:
    """Return what the page says of each task run."""
    page.goto(f"{api.url.removesuffix('/api')}/runs/flow-run/{run_id}")
    page.get_by_text("Task Runs", exact=True).first.click()
    items = page.locator(".state-list-item")
    expect(page.get_by_text(f"{n_stages} Task run").first).to_be_visible(timeout=WAIT_MS)
    expect(items).to_have_count(n_stages, timeout=WAIT_MS)
    lines = [items.nth(number).inner_text().splitlines() for number in range(n_stages)]
    return {line[0]: line[1] for line in lines}


def test_the_page_of_a_finished_run_names_every_stage_with_its_state_and_shows_the_confusion_matrix(
    project: Project, api: Api, page: Page
) -> None:
    done = flow(project, "--set", "train_head.folds=3", PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    run, _ = api.last_run()
    states = states_on(page, api, run["id"], len(STAGES))
    ran = ("train_head", "finetune", "evaluate", "quantize", "report", "export")
    assert states == {stage: "Completed" if stage in ran else "Cached" for stage in STAGES}
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("confusion-matrix", exact=True).first.click()
    picture = page.locator("img[src^='data:image/png']")
    expect(picture).to_be_visible(timeout=WAIT_MS)
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 100


def test_the_page_of_a_running_run_shows_where_it_is(project: Project, api: Api, page: Page) -> None:
    with run_in_its_slow_stage(project, api):
        run, tasks = api.last_run()
        states = states_on(page, api, run["id"], len(tasks))
    assert states["backbone"] == "Running"
    assert states["validate"] == "Cached"
    assert "embed" not in states
