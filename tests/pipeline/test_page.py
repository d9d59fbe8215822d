"""Prefect's page as a person sees it in a browser: the form for a run, the run, and what it links to."""

from __future__ import annotations

import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from headstart import params_file
from tasks.__main__ import STAGES
from tests.support.browser import WAIT_MS, opened
from tests.support.orchestration import Api, background, environment, run_in_its_slow_stage, wait_for
from tests.support.projects import Project


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with opened(is_ours=False) as page:
        yield page
        folder = Path(os.environ.get("HEADSTART_SCREENSHOTS", tmp_path))
        page.screenshot(path=folder / "last.png")


def shown_run(page: Page, api: Api, run_id: str) -> None:
    """Open the page of a run, in the user interface that opens by default."""
    page.goto(f"{api.url.removesuffix('/api')}/v2/runs/flow-run/{run_id}")


def states_on(page: Page, n_stages: int) -> dict[str, str]:
    """Return what the page says of each task run."""
    page.get_by_role("tab", name="Task Runs").click()

    def states() -> dict[str, str]:
        lines = page.get_by_role("tabpanel").inner_text().splitlines()
        return {line: after for line, after in pairwise(lines) if line in STAGES}

    found: dict[str, str] = wait_for(lambda: len(states()) == n_stages and states(), WAIT_MS // 1000)
    return found


@pytest.fixture
def deployment(project: Project, api: Api) -> Iterator[str]:
    """Yield the id of the deployment of a project that is served."""
    log = project.root.parent / "serve"
    command = [sys.executable, "-m", "flows.serve", "--cron", "0 3 1 1 *"]
    with background(command, log, cwd=project.root, env=environment(project, PREFECT_API_URL=api.url)):
        wait_for(lambda: "Your deployments are" in log.read_text(), 60)
        (found,) = api.asked("/deployments/filter", deployments={"name": {"any_": ["scheduled"]}})
        yield found["id"]


@pytest.mark.slow
def test_a_run_that_the_form_starts_keeps_its_name_and_shows_accuracy_report_and_model(
    project: Project, api: Api, page: Page, deployment: str
) -> None:
    before = (project.root / "params.yaml").read_bytes()
    page.goto(api.url.removesuffix("/api"))
    page.wait_for_url(re.compile("/v2/"))  # the user interface that opens by default, the one in the documentation
    page.set_viewport_size({"width": 1300, "height": 1750})
    page.goto(f"{api.url.removesuffix('/api')}/v2/deployments/deployment/{deployment}/run")
    for label in ("Images", "Backbone", "Fine-tuning", "Views", "Other parameters", "Keep these parameters", "Stages"):
        expect(page.get_by_text(f"{label} (Optional)", exact=True)).to_be_visible()
    page.get_by_label("Run Name").fill("three folds, one view")
    page.get_by_label("Views").fill("1")
    page.get_by_role("button", name="Add item").click()
    page.get_by_text("Select", exact=True).first.click()
    page.keyboard.type("train_head.folds")
    page.keyboard.press("Enter")
    page.get_by_label("Value").last.fill("3")
    page.screenshot(path=project.root.parent / "form.png")
    page.get_by_role("button", name="Submit").click()
    done = {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"any_": ["three folds, one view"]}}
    (run,) = wait_for(lambda: api.asked("/flow_runs/filter", flow_runs=done), 240)
    assert params_file.load(project.root / "params.yaml").train_head.folds == 5
    assert (project.root / "params.yaml").read_bytes() == before

    shown_run(page, api, run["id"])
    accuracy = re.search(r"[\d.]+%", run["state"]["message"])
    assert accuracy is not None
    expect(page.get_by_text(f"accuracy {accuracy[0]}", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"^95% CI [\d.]+%-[\d.]+%$")).first).to_be_visible()
    states = states_on(page, len(STAGES))
    unchanged = ("sample", "validate", "unlabelled", "split", "backbone", "transform")
    assert states == {stage: "Cached" if stage in unchanged else "Completed" for stage in STAGES}

    links = dict(re.findall(r"\[(.+?)\]\((http.+?)\)", api.artifacts()["result"]["data"]))
    for name, file in (("report.html", "artifacts/report.html"), ("model.onnx", "artifacts/model/model.onnx")):
        with urllib.request.urlopen(links[name]) as answer:
            assert answer.read() == (project.root / file).read_bytes()
    assert api.artifacts()["report"]["data"] == f"[report.html]({links['report.html']})"
    page.goto(f"{api.url.removesuffix('/api')}/v2/artifacts/artifact/{api.artifacts()['confusion-matrix']['id']}")
    picture = page.locator("img[src^='data:image/png']")
    expect(picture).to_be_visible(timeout=WAIT_MS)
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 100


def test_the_page_of_a_running_run_shows_where_it_is(project: Project, api: Api, page: Page) -> None:
    with run_in_its_slow_stage(project, api):
        run, tasks = api.last_run()
        shown_run(page, api, run["id"])
        states = states_on(page, len(tasks))
    assert states["backbone"] == "Running"
    assert states["validate"] == "Cached"
    assert "embed" not in states
