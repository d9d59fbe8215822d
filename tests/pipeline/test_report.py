"""The report of a finished run, held to the other files of the run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.projects import Project


def page_of(project: Project) -> str:
    return (project.root / "artifacts" / "report.html").read_text(encoding="utf-8")


def test_a_digest_has_one_name_in_report_model_and_card(base: Project) -> None:
    named = re.findall(r"<dt><code>(\w+_sha256)</code></dt><dd><code>([0-9a-f]{64})</code>", page_of(base))
    assert {name for name, _ in named} == {"training_data_sha256", "data_sha256", "weights_sha256"}
    model = json.loads((base.root / "artifacts/model/model.json").read_text())
    summary = json.loads((base.root / "artifacts/validation/summary.json").read_text())
    assert dict(named) == {name: {**model, **summary}[name] for name, _ in named}
    card = (base.root / "artifacts/model/MODEL_CARD.md").read_text()
    for name in ("training_data_sha256", "weights_sha256"):
        assert f"{name} `{model[name]}`" in card
    digests = set(re.findall(r"\b[0-9a-f]{64}\b", page_of(base))) | set(re.findall(r"\b[0-9a-f]{64}\b", card))
    assert digests == {digest for _, digest in named}  # none without a name


def test_the_report_tells_parameters_and_versions_and_a_shared_copy_its_commit(project: Project) -> None:
    page = page_of(project)
    told = dict(re.findall(r'<th scope="row"><code>([\w.]+)</code></th><td class="text"><code>([^<]*)</code>', page))
    assert told["backbone.name"] == "test_efficientnet"
    assert told["evaluate.bootstrap_samples"] == "100"
    backbone = json.loads((project.root / "artifacts/backbone/backbone.json").read_text())
    head = json.loads((project.root / "artifacts/head/head.json").read_text())
    for name, number in {**backbone["versions"], **head["versions"]}.items():
        assert f"{name} {number}" in page

    loose = project.run("make", "share", "TO=copy.html")
    assert loose.returncode != 0
    assert "is not the report that the last committed dvc.lock names" in loose.stdout
    assert not (project.root / "copy.html").exists()
    project.must("git", "add", "dvc.lock", "params.yaml")
    project.must("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "a model")
    commit = project.must("git", "rev-parse", "HEAD").strip()
    assert commit[:10] in project.must("make", "share", "TO=copy.html")
    copy = (project.root / "copy.html").read_text(encoding="utf-8")
    assert f"<dt>commit</dt><dd>{commit} of 20" in copy
    assert page_of(project) == page  # the tracked one is as it was
    Path(project.root / "artifacts/report.html").write_text(page + " ", encoding="utf-8")
    assert project.run("make", "share", "TO=other.html").returncode != 0
