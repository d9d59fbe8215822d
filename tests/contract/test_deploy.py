"""What stands in deploy/, prefect.yaml and docs/scheduling.md is what the code takes."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows import serve
from flows.pipeline import pipeline
from flows.request import Request
from tests.support.images import ROOT

DEPLOYMENTS: list[dict[str, Any]] = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "deploy" / "docker-compose.yaml")
TEXTS = [ROOT / "docs" / "scheduling.md", *sorted((ROOT / "deploy").iterdir()), ROOT / "README.md"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_asks_the_flow_for_what_it_takes(deployment: dict[str, Any]) -> None:
    file, _, name = deployment["entrypoint"].partition(":")
    assert (ROOT / file).is_file()
    assert name == pipeline.fn.__name__
    Request.model_validate(deployment.get("parameters", {}).get("request", {}))
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    for schedule in deployment.get("schedules", []):
        if "cron" in schedule:
            serve.cron(schedule["cron"], schedule["timezone"])


def test_serve_is_started_everywhere_with_options_that_it_has() -> None:
    commands = [
        line for text in TEXTS for line in re.findall(r"headstart schedule(.*)", text.read_text()) if "--" in line
    ]
    assert len(commands) >= 2
    for command in commands:
        options = serve.parser().parse_args(shlex.split(command.rstrip("`").partition("#")[0]))
        serve.cron(options.cron, options.timezone)


def test_no_secret_is_written_down() -> None:
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert value.startswith("${"), name
            assert not re.search(r"://\w+:(?!\$\{)[^@]*@", value), name
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_worker_serves_the_pool_of_the_deployments() -> None:
    pools = {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    (pool,) = pools
    assert f"worker start --pool {pool} --type process" in COMPOSE["services"]["worker"]["command"]
    assert f"prefect worker start --pool {pool}" in (ROOT / "docs" / "scheduling.md").read_text()
