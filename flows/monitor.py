"""The flow `monitor`: does what lies in a folder still look like what the model was tested on?

It counts the new images of a folder in the ledger of the model, as `headstart monitor` does, and posts a table, the
figures over time, and the most novel images. After the alarm it notifies people, and may start the pipeline: once
each, and again at the next look where it did not succeed, as the ledger keeps.
"""

from __future__ import annotations

from .pipeline import pipeline, speak_once  # first: it sets variables that Prefect reads on import

# isort: split
import argparse
import base64
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from prefect import State, flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from headstart.base.errors import HeadstartError
from headstart.embedding.contact_sheet import contact_sheet
from headstart.handover import asked
from headstart.handover.model import NOVEL_ABOVE, Model
from headstart.images.formats import UnreadableError
from headstart.layout import find_root
from headstart.monitoring import command, keeping, scores, watch
from headstart.monitoring import ledger as ledgers
from headstart.monitoring.ledger import Ledger, Look
from headstart.monitoring.reference import Reference
from headstart.monitoring.watch import FALSE_ALARM, Batch, Seen

from . import notify
from .events import data_uri
from .request import Request, Text

DRIFT, LOOKS, NOVEL = "drift", "drift-over-time", "most-novel"  # the artifacts' keys; the first names the state too
_N_NOVEL = 12


class Watching(BaseModel):
    """What is looked at, and what follows a drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Text = Field(title="Images", description="Folder of the images that the model meets.")
    model: Text = Field(default="artifacts/model", title="Model", description="Folder of the model.")
    ledger: Text = Field(default="", title="Ledger", description="File of the ledger. Empty: beside the model.")
    notify: Text = Field(default="", title="Notify", description="The block to notify of a drift, slack-webhook/team.")
    retrain: bool = Field(default=False, title="Retrain", description="Start the pipeline after a drift.")
    pull: bool = Field(default=False, title="Pull", description="Before that, fetch from DVC's remote.")
    push: bool = Field(default=False, title="Push", description="After it, send to DVC's remote.")


class Found(NamedTuple):
    """What a look has found."""

    seen: Seen
    ledger: Ledger
    path: Path  # of the ledger
    known: Reference
    images: Batch
    classes: Sequence[str]


@flow(name="monitor", validate_parameters=True)
def monitor(request: Watching) -> State[Any]:
    """Look at the folder once; the state's name is Drift once the ledger has an alarm."""
    speak_once()
    try:
        root = find_root(Path.cwd())
        os.chdir(root)
        if request.notify:
            notify.block(request.notify)  # a missing block must fail the run now, not when it is needed
        found = look(root, request)
    except HeadstartError as error:
        return Failed(message=str(error))
    post(found)
    said = words(found)
    if found.ledger.alarm is None:
        return Completed(message=said)
    return followed(request, found, said)


def followed(request: Watching, found: Found, said: str) -> State[Any]:
    """Do what is to follow a drift and has not succeeded yet; return the state, Failed if retraining fails."""
    log = get_run_logger()
    if request.notify and not found.ledger.notified:
        try:
            page = f"{PREFECT_UI_URL.value()}/runs/flow-run/{runtime.flow_run.id}"
            tell = cast("Any", notify.block(request.notify).notify)
            tell(f"{said}\n{page}", subject="monitor: drift")
        except Exception as error:  # of any service
            kind = type(error).__name__  # its text may hold the secret address
            log.error("%s was not notified (%s); the next look tries again", request.notify, kind)
            said = f"{said}; {request.notify} was not notified ({kind})"
        else:
            noted(found, notified=True)
    if request.retrain and not found.ledger.retrained:
        asked_for = Request(note="drift", pull=request.pull, push=request.push, notify=request.notify)
        state = pipeline(asked_for, return_state=True)
        if not state.is_completed():
            return Failed(message=f"{said}; the pipeline failed, and the next look tries again: {state.message}")
        noted(found, retrained=True)
        said = f"{said}; the pipeline ran: {state.message}"
    return Completed(name="Drift", message=said)


def noted(found: Found, *, notified: bool = False, retrained: bool = False) -> None:
    """Note in the ledger what has followed the alarm, unless it is that of another model by now."""
    try:
        with keeping.held(found.path):
            there = ledgers.read(found.path)
            if there is None or there.model_sha256 != found.ledger.model_sha256 or there.alarm != found.ledger.alarm:
                return
            there.notified |= notified
            there.retrained |= retrained
            there.write(found.path)
    except HeadstartError as error:
        what = "that people were told" if notified else "that the pipeline ran"
        get_run_logger().error("the next look will not know %s. %s", what, error)


@task(name="look", cache_policy=NO_CACHE, persist_result=False)
def look(root: Path, request: Watching) -> Found:
    """Count the images in the ledger, and compare them with the held-out ones."""
    log = get_run_logger()
    model = Model(root / request.model)
    known = command.reference_of(model)
    path = root / request.ledger if request.ledger else command.ledger_of(model.file)
    limits = argparse.ArgumentParser()
    asked.add_limits(limits)
    paths = asked.named([str(root / request.images)], "monitor")
    with keeping.held(path):
        opened = keeping.opened(path, known, None, FALSE_ALARM)
        ledger = opened.ledger
        with asked.asking(model, limits.parse_args([])) as asking:
            images = command.gathered(asking(paths), log.warning)
        seen = command.count(ledger, known, model, images, command.now())
        if said := opened.write():
            log.info(said)
    return Found(seen, ledger, path, known, images, model.classes)


def words(found: Found) -> str:
    """Return the outcome in a line."""
    alarm, look = found.ledger.alarm, found.seen.look
    said = f"drift, alarm at image {alarm.n_images} by {scores.WORDS[alarm.score]}" if alarm else "no drift shown"
    return f"{said}; {found.seen.n_counted} new images, {found.ledger.n_images} in all; about {look.accuracy:.1%} right"


def post(found: Found) -> None:
    """Show a table, the figures over time and the most novel images on Prefect's page."""
    create_table_artifact(rows(found), key=DRIFT, description=words(found))
    picture = base64.b64encode(over_time(found.ledger.looks, found.known)).decode()
    create_markdown_artifact(f"![over time]({data_uri(picture)})", key=LOOKS, description="A point for each look")
    if sheet := most_novel(found.images):
        picture = base64.b64encode(sheet).decode()
        create_markdown_artifact(f"![most novel]({data_uri(picture)})", key=NOVEL, description="The most novel images")


def rows(found: Found) -> list[dict[str, Any]]:
    """Return a row a figure: now, and on the held-out images."""
    told = watch.told(found.seen, found.ledger, found.known, found.classes)
    figures = {
        "mean confidence": told["confidence"],
        "share that the model abstains from": told["abstaining"],
        f"share with a novelty above {NOVEL_ABOVE}": told["novel"],
        "accuracy, estimated without labels": {**told["accuracy"], "now": told["accuracy"]["accuracy"]},
    }
    table = [{"what": name, "now": each["now"], "held out": each["held_out"]} for name, each in figures.items()]
    for score, capital in told["capital"].items():
        name = f"odds of a change by {scores.WORDS[score]}; an alarm at {told['limit']:.0f}"
        table.append({"what": name, "now": capital["now"], "held out": ""})
    table.append({"what": "p-value of this batch alone", "now": told["p_value"], "held out": ""})
    for label, share in list(told["classes"].items())[:20]:
        table.append({"what": f"share of {label}", "now": share["share"], "held out": share["held_out"]})
    return table


def over_time(looks: Sequence[Look], known: Reference) -> bytes:
    """Return a PNG: evidence, and the shares that a look has, over looks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    numbers = range(1, len(looks) + 1)
    above.plot(numbers, [each.evidence for each in looks], "o-", color="#c2410c", markersize=3)
    above.axhline(0, color="#1c2024", linewidth=0.8)
    above.set_ylabel("evidence of a change\n(log10; 0: alarm)")
    colours = {"accuracy": "#1a7f5a", "confidence": "#5a626b", "abstaining": "#2563eb", "novel": "#c2410c"}
    for name, colour in colours.items():
        estimated = ", estimated" if name == "accuracy" else ""
        below.plot(
            numbers,
            [getattr(each, name) for each in looks],
            "o-",
            color=colour,
            markersize=3,
            label=f"{name}{estimated}",
        )
    below.axhline(known.accuracy, color="#1a7f5a", linewidth=0.8, linestyle=":")
    below.set_ylim(0, 1.02)
    below.set_xlabel("look")
    below.legend(loc="center left", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def most_novel(images: Batch) -> bytes:
    """Return a JPEG of the images that are least like the training images; empty if none can be read again."""
    from headstart.images.decoding import decode

    found = []
    for row in np.argsort(-images.outputs["novelty"], kind="stable")[:_N_NOVEL]:
        try:
            found.append(decode(Path(images.names[row]).read_bytes()).rgb)
        except (OSError, UnreadableError):
            continue
    return contact_sheet({"most novel": found}) if found else b""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow once; return 0, 1 after an error, 3 after a drift."""
    parser = argparse.ArgumentParser(prog="python -m flows.monitor", description="Look once, as a run of Prefect.")
    parser.add_argument("images", help="folder of the images that the model meets")
    parser.add_argument("--model", default="artifacts/model", help="folder of the model (default: %(default)s)")
    parser.add_argument("--ledger", default="", metavar="FILE", help="default: beside the model")
    parser.add_argument("--notify", default="", metavar="TYPE/NAME", help="the block to notify of a drift")
    parser.add_argument("--retrain", action="store_true", help="start the pipeline after a drift")
    parser.add_argument("--pull", action="store_true", help="fetch from DVC's remote before it runs")
    parser.add_argument("--push", action="store_true", help="send to DVC's remote after it has run")
    state = monitor(Watching(**vars(parser.parse_args(arguments))), return_state=True)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return command.DRIFT if state.name == "Drift" else int(not state.is_completed())


if __name__ == "__main__":
    sys.exit(main())
