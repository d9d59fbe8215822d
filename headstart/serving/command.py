"""`headstart serve`: its options, and how the server starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.base.errors import CheckError

_LAST_PORT = 65_535


def serve(arguments: argparse.Namespace) -> int:
    """Answer over HTTP until SIGINT or SIGTERM; CheckError if the extra `serve` is not installed."""
    try:
        from headstart.serving import running
    except ImportError as error:
        raise CheckError(f"{error.name} is not installed. Run `pip install 'headstart[serve]'`.") from None
    running.run(arguments)
    return 0


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `headstart` (headstart/commands/main.py)."""
    command = commands.add_parser("serve", help="answer over HTTP, with a page to try the model in a browser")
    add = command.add_argument
    add("models", nargs="+", metavar="[NAME=]MODEL", help="artifacts/model, or a model.onnx; several are told by name")
    add("--host", default="127.0.0.1", help="0.0.0.0: reachable from other machines (default: 127.0.0.1)")
    add("--port", type=_port, default=8000, help="0: any free port (default: 8000)")
    batch = "wait so long for other images, which then go through the network together (default: 0, each on its own)"
    add("--batch-ms", type=_not_negative, default=0, metavar="MS", help=batch)
    add("--max-mb", type=_positive, default=20, metavar="MB", help="largest image file accepted (default: 20)")
    pixels = "most pixels of an image (default: 50000000)"
    add("--max-pixels", type=_positive, default=50_000_000, metavar="N", help=pixels)
    seconds = "of processor time, to decode an image (default: 10)"
    add("--max-seconds", type=_positive, default=10, metavar="S", help=seconds)
    waiting = "requests that may wait before others are refused (default: 128)"
    add("--max-waiting", type=_positive, default=128, metavar="N", help=waiting)
    add("--max-connections", type=_positive, default=512, metavar="N", help="open connections (default: 512)")
    address = "connections of one client address (default: any number)"
    add("--max-per-address", type=_positive, default=0, metavar="N", help=address)
    send = "that a client may take to send a header, and again a body, and not read its answer (default: 20)"
    add("--send-seconds", type=_seconds, default=20, metavar="S", help=send)
    add("--answer-seconds", type=_seconds, default=30, metavar="S", help="until an answer (default: 30)")
    ledgers = "keep a ledger of what each model meets, FOLDER/NAME.json, and say when that has changed"
    add("--monitor", type=Path, metavar="FOLDER", help=ledgers)
    command.set_defaults(run=serve)


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{value} is not a port. 0 to {_LAST_PORT} was expected")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def _seconds(text: str) -> float:
    value = _not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds are no time")
    return value
