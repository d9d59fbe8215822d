"""A run's overrides: written to params.yaml when the run begins, and taken out when it ends, however it ends.

A journal in DVC's folder for temporary files says what was written and what stood there before. It is on disk before
params.yaml changes. So if the process is killed, the next run on the checkout finds it and takes the overrides out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_run_logger
from pydantic import BaseModel, ConfigDict

from headstart import params_file
from headstart.base.files import write_text
from headstart.layout import Layout
from headstart.params import Params

from .request import Request


class _Journal(BaseModel):
    """What a run has done to params.yaml: its text before and after."""

    model_config = ConfigDict(frozen=True)

    names: list[str]  # of the parameters
    before: str
    written: str


def journal(root: Path) -> Path:
    """Return the path of a checkout's journal, which exists while a run's overrides are in params.yaml."""
    return root / ".dvc" / "tmp" / "overrides.json"


@contextmanager
def applied(request: Request, layout: Layout) -> Iterator[Params]:
    """Write the overrides to params.yaml while the body runs, or for good with `keep`; yield all parameters.

    ParamError, and an unchanged file, where a name or a value is wrong. The checkout has to be locked.
    """
    assignments = request.assignments()
    if request.keep or not assignments:
        yield params_file.assign(layout.params, assignments)
        return
    before = layout.params.read_text(encoding="utf-8")
    written, values = params_file.assigned(layout.params, assignments)
    names = [assignment.partition("=")[0] for assignment in assignments]
    entry = _Journal(names=names, before=before, written=written)
    path = journal(layout.root)
    write_text(path, entry.model_dump_json())
    try:
        write_text(layout.params, written)
        yield values
    finally:
        withdraw(layout)
        get_run_logger().info("params.yaml is as it was before; tick `keep` (--keep) to leave a run's parameters there")


def withdraw(layout: Layout) -> list[str]:
    """Take the overrides of the last run out of params.yaml, and return their names; [] if there are none.

    The file becomes what it was, byte for byte. If somebody has edited it since, their edit stays: only parameters that
    still have the run's value get their value of before.
    """
    path = journal(layout.root)
    try:
        entry = _Journal.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    now = layout.params.read_text(encoding="utf-8")
    if now == entry.written:
        write_text(layout.params, entry.before)
    elif now != entry.before:
        params_file.revert(layout.params, entry.names, entry.before, entry.written)
    path.unlink(missing_ok=True)
    return entry.names
