"""`headstart review`: what the audit found, on a local page, in a table or in the terminal, and what is decided."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from headstart import params_file, reviewed
from headstart.base.errors import ParamError
from headstart.base.validation import ValidationSummary
from headstart.commands.run import open_in_browser
from headstart.images import deep
from headstart.layout import Layout, find_root
from headstart.reviewing import desk, sheet
from headstart.reviewing.cases import Cases

_ADDRESS = "127.0.0.1"  # other machines cannot reach it
_STOPS_WITHIN_S = 2


def review(options: argparse.Namespace) -> int:
    """Do what the options ask for, by default show the page until Ctrl-C; return 0."""
    layout = _layout(options.folder)
    cases = Cases.of(layout)
    if cases.n_gone:
        print(
            f"review: {cases.n_gone} findings concern images that are no longer there, and are left out."
            " `headstart run` looks anew"
        )
    if options.accept:
        _accept(cases, layout, options.accept)
    elif options.csv:
        sheet.write(options.csv, cases, reviewed.read(layout.reviewed))
        print(f"review: {len(cases.all)} findings are in {options.csv}. Fill in the column decision, then")
        print(f"        `headstart review --from {options.csv}`")
    elif options.source:
        n_lines, n_gone = sheet.read(options.source, cases, layout.reviewed)
        gone = f"; {n_gone} lines are about findings that are no longer there, and were left out" if n_gone else ""
        print(f"review: {n_lines} decisions are taken over into {reviewed.NAME}{gone}")
    elif options.list:
        print("\n".join(sheet.table(cases, reviewed.read(layout.reviewed), options.all)))
    else:
        bits = ValidationSummary.of(layout).bits or deep.ALL_BITS
        where = desk.Desk(cases, layout.reviewed)
        shown = Shown(layout.images, bits)
        serve(where, layout, options.port, options.no_browser, "review", f"{len(cases.all)} findings", shown)
        n_decisions = len(where.decisions())
        uses = "; `headstart run` uses them" if n_decisions else ""
        print(f"review: {reviewed.NAME} has {n_decisions} decisions{uses}")
    return 0


class Shown(NamedTuple):
    """Where the images of a page lie, and how many bits the values of files with 16 bits a channel have."""

    folder: Path
    bits: int


def _layout(folder: str | None) -> Layout:
    """Return the layout of the project that an audit belongs to; ParamError if it is none."""
    root = find_root(Path(folder or "."))
    layout = Layout.of(root, params_file.load(root / "params.yaml"))
    if folder and Path(folder).resolve() not in (root, layout.artifacts, layout.audit):
        raise ParamError(
            f"{folder} is no audit. The folder {layout.audit.relative_to(root)} of a project was expected."
        )
    return layout


def _accept(cases: Cases, layout: Layout, what: str) -> None:
    done = {"leaks": desk.accept_leaks, "groups": desk.accept_groups}[what](cases, layout.reviewed)
    if done.n_small:
        print(
            f"review: {done.n_small} images stay apart, since a class would have too few groups for all splits. Add"
            " images to it, drop such classes by validate.min_images, or drop the copies on the page"
        )
    elif not done.n_images:
        print(f"review: there was nothing to decide: no {what} that are open")
    if done.n_images:
        left = f"; {done.n_left} images stay as they were decided" if done.n_left else ""
        print(
            f"review: {done.n_images} images are put together in {done.n_groups} groups in {reviewed.NAME}{left}. The"
            " next run keeps each group in one split: `headstart run`"
        )


def serve(where: desk.Desk, layout: Layout, port: int, is_quiet: bool, command: str, what: str, shown: Shown) -> None:
    """Show the page of a desk until Ctrl-C. `is_quiet`: open no browser. `what` there is to decide."""
    import uvicorn

    from headstart.reviewing.application import Pictures, application

    where.decisions()  # an error in the file is told before the page opens
    with _listening(port) as listening:
        port, token = listening.getsockname()[1], secrets.token_urlsafe(16)
        app = application(where, layout.root.name, Pictures(where, *shown), token, port)
        url = f"http://{_ADDRESS}:{port}/{token}/"
        print(
            f"{command}: {what}, at {url}"
            f"\n        Ctrl-C ends this; what is decided is in {where.file.relative_to(layout.root)}"
        )
        sys.stdout.flush()
        if not is_quiet:
            open_in_browser(url)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOPS_WITHIN_S,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    """Return a socket that waits for browsers of this machine; ParamError if the port is taken or forbidden."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((_ADDRESS, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ParamError(
            f"port {port} cannot be used ({error.strerror}). A free one was expected. Leave out --port, and one is"
            " chosen."
        ) from None
    return listening
