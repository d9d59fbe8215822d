"""Publishes a finished stage's files on Prefect's page: scores, the model card, what was set aside, what was found.

Keys are the same in every run, so Prefect shows the history of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from headstart.auditing import folder as auditing
from headstart.auditing.folder import AuditRecord
from headstart.base import validation
from headstart.base.markdown import plain
from headstart.base.validation import ValidationSummary
from headstart.evaluation import accepted
from headstart.evaluation import folder as evaluation
from headstart.handover import folder, hub
from headstart.layout import Layout
from headstart.onnx.model_folder import CARD
from headstart.onnx.model_folder import MODEL as MODEL_FILE

from .headline import link

METRICS, MODEL, REPORT, VALIDATION, AUDIT = "metrics", "model", "report", "validation", "audit"  # the artifacts' keys
_MAX_ROWS = 50


def publish(layout: Layout, stage: str) -> None:
    """Publish what a stage has written, if there is anything to show."""
    publishers = {"validate": _validation, "audit": _audit, "evaluate": _metrics, "report": _report, "publish": _model}
    if stage in publishers:
        publishers[stage](layout)


def score_rows(
    now: Mapping[str, float], changes: Mapping[str, Mapping[str, float]], before: str
) -> list[dict[str, Any]]:
    """Return one row per score: its value, its value in `before`, and the change; empty if `before` has none."""
    rows = []
    for name, value in now.items():
        change = changes.get(f"test.{name}", {})
        difference = round(change["diff"], 6) if "diff" in change else ""
        rows.append({"score": name, "value": value, before: change.get("old", ""), "change": difference})
    return rows


def validation_sheet(summary: ValidationSummary, quarantined: list[tuple[str, str]]) -> str:
    """Return Markdown: the number of images of each class, and the files set aside with their reasons."""
    lines = [f"{summary.n_images} images of {summary.n_classes} classes, read as {plain(summary.form)}", ""]
    lines += ["| class | images |", "|---|---|"]
    lines += [f"| {plain(name)} | {count} |" for name, count in list(summary.images_per_class.items())[:_MAX_ROWS]]
    lines += ["", f"{len(quarantined)} {'file was' if len(quarantined) == 1 else 'files were'} set aside."]
    if quarantined:
        lines += ["", "| file | reason |", "|---|---|"]
        lines += [f"| {plain(path)} | {plain(reason)} |" for path, reason in quarantined[:_MAX_ROWS]]
    return "\n".join(lines)


def audit_sheet(record: AuditRecord | None, findings: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: the warnings, the counts, and the first findings, rows of findings.parquet."""
    if record is None:
        return "audit.enabled is false: nothing was looked at."
    lines = [f"**{plain(warning[0].upper() + warning[1:])}.**\n" for warning in record.warnings]
    lines.append(record.told)
    if findings:
        lines += ["", "| image | split | found | to do |", "|---|---|---|---|"]
    for each in findings[:_MAX_ROWS]:
        cells = (each["path"], each["split"], each["reason"], each["to_do"])
        lines.append(f"| {' | '.join(map(plain, cells))} |")
    if len(findings) > _MAX_ROWS:
        lines += ["", f"The first {_MAX_ROWS} of {len(findings)}."]
    return "\n".join(lines)


def _audit(layout: Layout) -> None:
    sheet = audit_sheet(auditing.read(layout.audit), auditing.findings(layout.audit).to_dicts())
    create_markdown_artifact(sheet, key=AUDIT, description="What may be wrong with the images and their labels")


def _validation(layout: Layout) -> None:
    sheet = validation_sheet(ValidationSummary.of(layout), validation.quarantined(layout))
    create_markdown_artifact(sheet, key=VALIDATION, description="The images found, and the files set aside")


def _metrics(layout: Layout) -> None:
    from dvc.repo import Repo

    test = evaluation.scores(layout.evaluation).model_dump()
    path = (layout.evaluation / evaluation.METRICS).relative_to(layout.root).as_posix()
    with Repo(str(layout.root)) as repo:  # one of its own: a look at another commit would disturb the running one
        version = accepted.newest(repo.scm.list_tags())
        tag = version and accepted.tag_of(version)
        changes = repo.metrics.diff(a_rev=tag or "HEAD", targets=[path], all=True).get("diff", {}).get(path, {})
    rows = score_rows(test, changes, tag or "last commit")
    create_table_artifact(rows, key=METRICS, description="Scores on the held-out images")


def _report(layout: Layout) -> None:
    create_link_artifact(link(layout.report), link_text=layout.report.name, key=REPORT, description="The report")


def _model(layout: Layout) -> None:
    digest = folder.read_model(layout.model).model_sha256
    card = hub.body((layout.model / CARD).read_text(encoding="utf-8"))
    sheet = f"{card}\n[{MODEL_FILE}]({link(layout.model / MODEL_FILE)}), model_sha256 `{digest}`\n"
    create_markdown_artifact(sheet, key=MODEL, description="The model card")
