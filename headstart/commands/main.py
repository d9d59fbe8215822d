"""`headstart COMMAND`: one command line for a project and for a finished model.

What concerns a finished model imports onnxruntime, Pillow and numpy alone. The other commands are imported when they
are called, and say which packages are missing.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from headstart.base.errors import CheckError, did_you_mean
from headstart.base.exits import status_of
from headstart.commands import completion, origin
from headstart.handover import cli
from headstart.monitoring import command as monitoring
from headstart.serving import command as serving


class Command(NamedTuple):
    """A command of the pipeline: in which group of the help it stands, and the function that runs it."""

    group: str
    words: str  # what it does
    module: str
    function: str
    parses: bool = False  # its arguments itself: `function` takes them as they are


_MOST_NEXT = 10_000  # images to label
_PROJECT, _PREFECT, _MODEL = "A project", "The same under Prefect", "A finished model"
COMMANDS = {
    "new": Command(_PROJECT, "make a project in a folder, with git and DVC set up", "commands.new", "new"),
    "run": Command(_PROJECT, "run what has changed: images in, checked model and report out", "commands.run", "run"),
    "set": Command(_PROJECT, "check parameters and write them to params.yaml", "commands.run", "assign", True),
    "status": Command(_PROJECT, "say what the next run would do", "commands.run", "status"),
    "rank": Command(_PROJECT, "compare backbones on your images; the project stays as it is", "commands.rank", "rank"),
    "report": Command(_PROJECT, "open the report of the last run", "commands.run", "report"),
    "review": Command(_PROJECT, "look at what the audit found, and decide about it", "commands.review", "review"),
    "next": Command(
        _PROJECT, "choose what to label next of images without labels, on a page", "commands.next", "propose"
    ),
    "share": Command(_PROJECT, "write a copy of the report that names its commit", "flows.share", "main", True),
    "describe": Command(
        _PROJECT, "describe the images of the last run as a Croissant dataset", "commands.describe", "describe"
    ),
    "cache": Command(_PROJECT, "show the cache that all projects share, or prune it", "commands.cache", "cache"),
    "stage": Command(_PROJECT, "run one stage, as dvc.yaml does", "commands.run", "stage", True),
    "flow": Command(_PREFECT, "run as a Prefect flow, with its page to watch", "flows.pipeline", "main", True),
    "schedule": Command(_PREFECT, "run every night, or whenever there are new images", "flows.serve", "main", True),
    "accept": Command(_PREFECT, "make this commit's model the one to beat", "flows.accept", "main", True),
}
MODEL_COMMANDS = {
    "predict": "classify images",
    "verify": "compare checksums, replay the conformance images here",
    "sign": "sign every file of the model with your key",
    "info": "print classes, backbone, preprocessing, digests, versions",
    "serve": "answer over HTTP, with a page to try the model in a browser",
    "monitor": "say whether new images are still like those that it was tested on",
    "page": "write a static site that runs the model in the visitor's browser",
}
_SHELL = "completion"


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands but those that parse their own arguments."""
    top = argparse.ArgumentParser(prog="headstart", add_help=False, usage="headstart COMMAND ...")
    commands = top.add_subparsers(prog="headstart", metavar="COMMAND", dest="command")

    def add(name: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, description=f"{COMMANDS[name].words[0].upper()}{COMMANDS[name].words[1:]}.")
        command.set_defaults(run=_of_pipeline(name))
        return command

    new = add("new")
    new.add_argument("folder", metavar="FOLDER", help="a new or an empty folder")
    new.add_argument("--data", metavar="PHOTOS", help="class folders or a list of images (default: handwritten digits)")
    new.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter to begin with")
    run = add("run")
    run.add_argument("targets", nargs="*", metavar="STAGE", help="stages, with all that they need (default: all)")
    run.add_argument("--data", metavar="PHOTOS", help="class folders or a list of images; written to params.yaml")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter to write first")
    run.add_argument("--force", action="store_true", help="run the stages even if nothing has changed")
    _add_rank(add("rank"))
    add("status").add_argument("--json", action="store_true", help="one object, for programs")
    add("report").add_argument("--path", action="store_true", help="print its path alone")
    _add_review(add("review"))
    described = add("describe")
    described.add_argument("folder", type=Path, metavar="TO", help="a folder for croissant.json and images.json")
    described.add_argument("--licence", metavar="SPDX", help="of the images, such as CC-BY-4.0")
    described.add_argument("--url", help="the page of the dataset")
    prune = "remove what was used longest ago until at most GB are left; 0: everything"
    add("cache").add_argument("--prune", type=_size, metavar="GB", help=prune)
    _add_next(add("next"))
    cli.add_commands(commands)
    monitoring.add_command(commands)
    serving.add_command(commands)
    shell = commands.add_parser(_SHELL, description="Print the completion of this command for a shell.")
    shell.add_argument("shell", choices=sorted(completion.SHELLS), help="such as bash")
    shell.set_defaults(run=lambda options: completion.show(options.shell, top, _own_words()))
    return top


def _add_rank(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    names = "such as resnet18 (default: rank.backbones; if that is empty, the bundled networks)"
    add("backbones", nargs="*", metavar="BACKBONE", help=names)
    add("--data", metavar="PHOTOS", help="class folders or a list of images (default: data.root)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, for this comparison alone")
    add("--picture", type=Path, metavar="FILE", help="draw accuracy against time as a PNG")


def _add_review(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", nargs="?", metavar="AUDIT", help="artifacts/audit of a project (default: of the current folder's)")
    way = command.add_mutually_exclusive_group()
    accept = "decide for all at once: each leaking picture in one split; each proposed group one"
    way.add_argument("--accept", choices=("leaks", "groups"), help=accept)
    table = "write the findings as a table, to fill in the column `decision` in a spreadsheet"
    way.add_argument("--csv", type=Path, metavar="FILE", help=table)
    way.add_argument("--from", type=Path, dest="source", metavar="FILE", help="read such a table back")
    way.add_argument("--list", action="store_true", help="print the findings that are not decided")
    add("--all", action="store_true", help="with --list: those that are decided too")
    add("--port", type=_port, default=0, help="of the page (default: a free one)")
    add("--no-browser", action="store_true", help="print the page's address, and open nothing")


def _add_next(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("-n", "--n", type=_number, default=50, metavar="N", help="how many (default: %(default)s)")
    rules = ("random", "margin", "diverse margin", "badge", "core-set")
    add("--rule", choices=rules, default="diverse margin", help="docs/new-images.md has them (default: %(default)s)")
    add("--seed", type=int, default=0, help="of what a rule draws (default: 0)")
    way = command.add_mutually_exclusive_group()
    way.add_argument("--list", action="store_true", help="write the list and the picture, and show no page")
    way.add_argument("--from", type=Path, dest="source", metavar="FILE", help="read the labels of a list back")
    add("--new-classes", action="store_true", help="with --from: labels may be classes that there are not yet")
    add("--port", type=_port, default=0, help="of the page (default: a free one)")
    add("--no-browser", action="store_true", help="print the page's address, and open nothing")


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MOST_NEXT:
        raise argparse.ArgumentTypeError(f"'{text[:20]}' is no number of 1 to {_MOST_NEXT}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(
            f"'{text[:20]}' is no port. A number of 0 to 65535 was expected; 0: a free one"
        )
    return int(text)


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of gigabytes. 0 or more was expected, such as 20")
    return value


def _own_words() -> dict[str, list[str]]:
    """Return what may follow each command that parses its own arguments."""
    known = {"set": [f"{name}=" for name in origin.parameters()], "stage": origin.stages(), "flow": origin.stages()}
    return {name: ["--help", *known.get(name, [])] for name in own_parsers()}


def own_parsers() -> list[str]:
    """Return the commands that parse their own arguments."""
    return [name for name, command in COMMANDS.items() if command.parses]


def text_of_help() -> str:
    """Return the help: every command on one line, by what it is about."""
    usage = "usage: headstart COMMAND ...; `headstart COMMAND --help` has the options"
    lines = [usage, "A folder of labelled images in, one checked ONNX model out."]
    for group in (_PROJECT, _PREFECT):
        lines += [f"{group}:"]
        lines += [f"  {name:<11} {command.words}" for name, command in COMMANDS.items() if command.group == group]
    lines += [f"{_MODEL}:", *(f"  {name:<11} {words}" for name, words in MODEL_COMMANDS.items())]
    lines += ["This command:", f"  {_SHELL:<11} print the completion for bash, zsh or fish"]
    return "\n".join([*lines, "  --version   print the version and the digest of the code"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after an error, 2 for bad images or a wrong command line, 130 for Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        return status_of("headstart", lambda: _say(text_of_help(), 0 if given else 2))
    if given[0] == "--version":
        told = f"headstart {origin.version()} (code {origin.code_sha256()[:12]})"
        return status_of("headstart", lambda: _say(told))
    name = given[0]
    known = [*COMMANDS, *MODEL_COMMANDS, _SHELL]
    if name not in known:
        print(
            f"headstart: '{name}' is not a command.{did_you_mean(name, known)} `headstart --help` lists them.",
            file=sys.stderr,
        )
        return 2
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    if name in own_parsers():
        return status_of(name, lambda: _run(name, given[1:]))
    return status_of(name, lambda: _run_model_command(given))


def _run_model_command(given: list[str]) -> int:
    options = parser().parse_args(given)
    return int(options.run(options))


def _say(text: str, status: int = 0) -> int:
    print(text)
    return status


def _of_pipeline(name: str) -> Callable[[argparse.Namespace], int]:
    return lambda options: _run(name, options)


def _run(name: str, arguments: argparse.Namespace | list[str]) -> int:
    """Run a command of the pipeline; CheckError if a package that it imports is not installed."""
    command = COMMANDS[name]
    is_flow = command.module.startswith("flows.")
    try:
        found = origin.module(command.module) if is_flow else importlib.import_module(f"headstart.{command.module}")
        return int(getattr(found, command.function)(arguments))
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("headstart", "flows", "tasks"):
            raise  # a bug of ours
        raise CheckError(
            f"{error.name} is not installed, and `headstart {name}` needs it. Run `pip install 'headstart[pipeline]'`."
        ) from None
