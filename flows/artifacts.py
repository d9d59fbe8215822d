"""What Prefect's page shows of a run beside its log: scores, the model's hand-over sheet, what was set aside.

Keys are stable, so that Prefect shows the history of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from headstart.files import read_csv, read_json
from headstart.layout import Layout

METRICS, MODEL, VALIDATION = "metrics", "model", "validation"  # the artifacts' keys
_MAX_ROWS = 50


def publish(layout: Layout, ran: set[str], repo: Any) -> None:
    """Publish what the stages that `ran` have written. What cannot be shown never fails a run."""
    publishers = {"validate": _validation, "evaluate": _metrics, "export": _model}
    for stage, publisher in publishers.items():
        if stage in ran:
            try:
                publisher(layout, repo)
            except Exception as error:  # of DVC, of Prefect's server, of a file: none of them is the run's
                get_run_logger().warning("the page lacks what %s has written: %s", stage, error)


def score_rows(now: Mapping[str, float], changes: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a row a score: its value, at the last commit, and the change; empty where the last commit has none."""
    rows = []
    for name, value in now.items():
        change = changes.get(f"test.{name}", {})
        rows.append(
            {"score": name, "value": value, "last commit": change.get("old", ""), "change": change.get("diff", "")}
        )
    return rows


def validation_sheet(summary: Mapping[str, Any], quarantined: list[tuple[str, str]]) -> str:
    """Return Markdown: how many images there are of each class, and what was set aside with which reason."""
    lines = [f"{summary['n_images']} images of {summary['n_classes']} classes, read as {summary['form']}", ""]
    lines += ["| class | images |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in list(summary["images_per_class"].items())[:_MAX_ROWS]]
    lines += ["", f"{len(quarantined)} files were set aside."]
    if quarantined:
        lines += ["", "| file | reason |", "|---|---|"]
        lines += [f"| {path} | {reason} |" for path, reason in quarantined[:_MAX_ROWS]]
    return "\n".join(lines)


def _validation(layout: Layout, repo: Any) -> None:
    summary = read_json(layout.validation / "summary.json", "validate")
    quarantined = list(read_csv(layout.validation / "quarantine.csv", "validate").iter_rows())
    create_markdown_artifact(validation_sheet(summary, quarantined), key=VALIDATION, description="What was found")


def _metrics(layout: Layout, repo: Any) -> None:
    test = read_json(layout.evaluation / "metrics.json", "evaluate")["test"]
    path = (layout.evaluation / "metrics.json").relative_to(layout.root).as_posix()
    changes = repo.metrics.diff().get("diff", {}).get(path, {})
    create_table_artifact(score_rows(test, changes), key=METRICS, description="The held-out images")


def _model(layout: Layout, repo: Any) -> None:
    facts = read_json(layout.model / "model.json", "export")
    card = (layout.model / "MODEL_CARD.md").read_text(encoding="utf-8")
    sheet = f"{card}\nSHA-256 of model.onnx: `{facts['model_sha256']}`\n"
    create_markdown_artifact(sheet, key=MODEL, description="The model's hand-over sheet")
