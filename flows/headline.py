"""What a run's page says first: its name, its accuracy with interval, and links to the report and the model."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from hashlib import md5, sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coolname.data import config  # Prefect makes its names of these words
from prefect import get_client, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact

from headstart.auditing import folder as auditing
from headstart.base import dataset
from headstart.base.markdown import plain
from headstart.evaluation import folder as evaluation
from headstart.evaluation.folder import TestScores
from headstart.layout import Layout
from headstart.onnx.model_folder import MODEL
from headstart.params import Params

FILES_VARIABLE = "HEADSTART_FILES_URL"  # where `flows.serve` serves DVC's cache; it sets it for its runs
RESULT = "result"  # the artifact's key
_words: dict[str, Any] = config

# The page's form proposes one of these, a hyphen, and an animal, such as Unbranded-Gollie (Prefect 3.8.8).
_PROPOSED = re.compile(
    "(Awesome|Rustic|Small|Gorgeous|Fantastic|Sleek|Intelligent|Unbranded|Refined|Licensed|Generic|Practical|Ergonomic"
    "|Handcrafted|Tasty|Handmade|Incredible)-.+"
)


def is_generated(name: str) -> bool:
    """Return whether Prefect made up a run's name, as opposed to somebody who typed it."""
    first, hyphen, second = name.partition("-")
    made = bool(hyphen) and first in _of("adj_any") and second in _of("subj")
    return made or _PROPOSED.fullmatch(name) is not None


def _of(kind: str) -> set[str]:
    """Return the words of one of coolname's lists of lists."""
    return {word for name in _words[kind]["lists"] for word in _words[name]["words"]}


def run_name(values: Params, note: str) -> str:
    """Return the name of a run: dataset, backbone, a short digest of all parameters, and the note."""
    digest = sha256(values.model_dump_json().encode()).hexdigest()[:8]
    parts = [Path(values.data.root).stem, values.backbone.name.rpartition("/")[2], digest, note]
    return " ".join(part for part in parts if part)


def describe(values: Params, note: str) -> None:
    """Give the current run tags with its dataset and backbone, and a name unless somebody has typed one."""
    tags = [f"dataset:{Path(values.data.root).stem}", f"backbone:{values.backbone.name.rpartition('/')[2]}"]
    given = runtime.flow_run.name
    name = run_name(values, note) if is_generated(given) else given
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, name=name, tags=[*tags, *runtime.flow_run.tags])


def show_result(layout: Layout, up_to_date: Collection[str]) -> str:
    """Show the model's accuracy as tags, as an artifact with links and in the log; return it in words.

    It returns '' where the stages that are up to date leave out `evaluate`.
    """
    if "evaluate" not in up_to_date:
        return ""
    test = evaluation.scores(layout.evaluation)
    files = {"report": layout.report, "publish": layout.model / MODEL}
    try:
        links = {path.name: link(path) for stage, path in files.items() if stage in up_to_date}
        doubts = warnings(layout) if "audit" in up_to_date else []
        create_markdown_artifact(sheet(test, links, doubts), key=RESULT, description="Accuracy, report and model")
        with get_client(sync_client=True) as client:
            tags = client.read_flow_run(runtime.flow_run.id).tags
            client.update_flow_run(runtime.flow_run.id, tags=[*score_tags(test), *tags])  # the page shows three
        for name, url in links.items():
            get_run_logger().info("%s: %s", name, url)
    except Exception as error:  # an error of Prefect's server must not fail a run that has succeeded
        get_run_logger().warning("Prefect's page does not show the result: %s", error)
    return test.headline.told(test.n_images)


def score_tags(test: TestScores) -> list[str]:
    """Return the headline and its interval, each short enough for the page to show it in full."""
    first = test.headline
    name = {"accuracy": "accuracy", "balanced accuracy": "balanced"}[first.name]
    return [f"{name} {first.value:.2%}", f"95% CI {first.low:.1%}-{first.high:.1%}"]


def warnings(layout: Layout) -> list[str]:
    """Return what a reader should know before the figures."""
    found, changed = auditing.read(layout.audit), dataset.read_summary(layout).decided.told()
    return [*([changed] if changed else []), *(found.warnings if found else [])]


def sheet(test: TestScores, links: dict[str, str], warnings: Sequence[str] = ()) -> str:
    """Return Markdown: the headline, what makes it doubtful, and the links."""
    lines = [f"# {test.headline.value:.2%}", "", test.headline.told(test.n_images), ""]
    for warning in warnings:
        lines += [f"**{plain(warning[0].upper() + warning[1:])}.**", ""]
    return "\n".join([*lines, *(f"- [{name}]({url})" for name, url in links.items())]) + "\n"


def link(path: Path) -> str:
    """Return a link to these very bytes where `flows.serve` serves DVC's cache, else one to the file."""
    base = os.environ.get(FILES_VARIABLE)
    if not base:
        return f"file://{quote(path.as_posix())}"
    with path.open("rb") as file:
        digest = md5(usedforsecurity=False)
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{base}/{digest.hexdigest()}/{path.name}"
