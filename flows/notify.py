"""Notifies people of a failed run through one of Prefect's notification blocks, which keeps the secret."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

import prefect.blocks.notifications  # noqa: F401 registers the types of blocks, which loading needs
from prefect import Flow, State, get_client
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_UI_URL

from headstart.base.errors import ParamError

from .request import Request


def block(name: str) -> NotificationBlock:
    """Return the notification block `type/name`; ParamError if Prefect has none of that name."""
    try:
        found = Block.load(name)
    except (ValueError, RuntimeError) as error:
        raise ParamError(
            f"notify is '{name}', which cannot be loaded ({error}). A notification block as TYPE/NAME was expected,"
            " such as slack-webhook/team. Create one on Prefect's page Blocks, or leave notify empty."
        ) from None
    if not isinstance(found, NotificationBlock):
        raise ParamError(
            f"notify is '{name}', which is a {type(found).__name__}. A notification block as TYPE/NAME was expected."
        )
    return found


def of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Notify the block that the run names; Prefect calls this when a run has failed or crashed."""
    request = Request.model_validate(flow_run.parameters.get("request", {}))
    if not request.notify:
        return
    page = f"{PREFECT_UI_URL.value()}/runs/flow-run/{flow_run.id}"
    with contextlib.suppress(ParamError):  # the run has failed with that error and reports it
        tell = cast("Callable[..., None]", block(request.notify).notify)  # its type does not say whether to await it
        with get_client(sync_client=True) as client:
            name = client.read_flow_run(flow_run.id).name  # `flow_run` still has the initial name
        tell(f"{state.message}\n{page}", subject=f"{flow.name} {state.name}: {name}")
