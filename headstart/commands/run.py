"""`headstart run`, `status` and `report`: a project's daily commands, around DVC's own."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any

from headstart import params_file
from headstart.base import changed, progress
from headstart.base.errors import CheckError, ParamError
from headstart.commands import locks, origin, record
from headstart.commands.track import track
from headstart.layout import Layout, find_root

_SOME = 3  # changes that are named


def run(options: argparse.Namespace) -> int:
    """Check and write the parameters, bring the targets up to date by DVC, print the summary; return DVC's status."""
    root = find_root(Path.cwd())
    data = [f"data.root={from_root(options.data, root)}"] if options.data else []
    os.chdir(root)
    progress.begin("run")
    for told in locks.mend(root):
        progress.warn(told)
    record.refresh(root)
    layout = Layout(root)
    tasks = origin.module("tasks.__main__")
    if status := write(root, [*data, *options.set]):
        return status
    if options.data:
        track(root, params_file.load(layout.params).data.root, dvc)
    if changed.is_noted(layout.failed):
        progress.begin("run")
        progress.say("an image had changed while `validate` ran; all files are looked at again")
        if status := dvc("repro", "--force", "--single-item", "validate"):
            return status
    if status := dvc("repro", *(["--force"] if options.force else []), *options.targets):
        return status
    return 0 if options.targets else int(tasks.main(["summary"]))


def write(root: Path, assignments: list[str]) -> int:
    """Check and write parameters, and say which results the next run replaces; return 0, or 1 where one is refused."""
    layout = Layout(root)
    before = _results_of(layout)
    if status := origin.module("tasks.__main__").main(["set", *assignments]):
        return int(status)
    now = params_file.load(layout.params).data.root
    if before is not None and before != now:
        _say_replaced(before, now)
    return 0


def take(given: str) -> int:
    """Write a folder or list of images, as the command line names it, to params.yaml; return 0, or 1 if it is none.

    Images in the project are given to DVC. The current folder is the project's afterwards.
    """
    root = find_root(Path.cwd())
    data = from_root(given, root)
    os.chdir(root)
    if status := write(root, [f"data.root={data}"]):
        return status
    track(root, params_file.load(Layout(root).params).data.root, dvc)
    return 0


def assign(arguments: list[str]) -> int:
    """Check `section.name=value` assignments and write them to params.yaml; without any, check the file alone."""
    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: headstart set [NAME=VALUE ...]\n")
        print("Check parameters and write them to params.yaml, such as `headstart set split.seed=1 embed.views=4`.")
        print("Without any, check the file alone. It says what each parameter means.")
        return 0
    os.chdir(find_root(Path.cwd()))
    return int(origin.module("tasks.__main__").main(["set", *arguments]))


def stage(arguments: list[str]) -> int:
    """Run one stage, or show what one offers beside it; CheckError if the project names other code than this."""
    tasks = origin.module("tasks.__main__")
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: headstart stage STAGE\n")
        print("Run one stage as dvc.yaml does, whether or not anything has changed. Its parameters are in params.yaml.")
        print(f"Stages: {', '.join(tasks.STAGES)}\n")
        print("  headstart stage backbone --list resnet18   the layer groups that finetune.unfreeze counts")
        print("  headstart stage finetune --find-lr         try learning rates, propose a finetune.lr")
        return 0 if arguments else 2
    root = find_root(Path.cwd())
    os.chdir(root)
    record.check(root)
    return int(tasks.main(arguments))


def from_root(given: str, root: Path) -> str:
    """Return a path that is relative to the current folder as data.root is: relative to the project's."""
    if "://" in given:
        return given
    path = Path(given).expanduser()
    if path.is_absolute() or Path.cwd() == root:
        return path.as_posix()
    return Path(os.path.relpath(path.resolve(), root)).as_posix()


def _results_of(layout: Layout) -> str | None:
    """Return the data.root that the results in artifacts/ are of; None if there are none, or nothing is recorded."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not layout.report.exists() and not layout.model.exists():
        return None
    try:
        lock = YAML(typ="safe").load(layout.root / "dvc.lock")
        return str(lock["stages"]["export"]["params"]["params.yaml"]["data.root"])
    except (OSError, KeyError, TypeError, ValueError, YAMLError):  # DVC says what is wrong with its file
        return None


def _say_replaced(before: str, now: str) -> None:
    name = Path(now).stem
    progress.begin("run")
    progress.say(
        f"the results in artifacts/ are those of {before}; this run puts those of {now} in their place. Nothing is"
        f" lost: `headstart run --data '{before}'` brings them back. To keep both side by side, give each a project:"
        f" `headstart new ../{name} --data '{now}'`"
    )


def dvc(*arguments: str) -> int:
    """Run DVC in the current folder and return its exit status; Ctrl-C reaches it, and this process waits for it.

    -P: a file of the project whose name is that of some module must not be imported in its place.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {"DO_NOT_TRACK": "1", **os.environ, "PATH": path}
    with subprocess.Popen([sys.executable, "-P", "-m", "dvc", *arguments], env=environment) as process:
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        }
        try:
            return process.wait()
        finally:
            for number, handler in before.items():  # the next process would inherit that Ctrl-C is ignored
                signal.signal(number, handler)


def status(options: argparse.Namespace) -> int:
    """Print the images, the model, and what the next run would do; nothing is changed."""
    root = find_root(Path.cwd())
    layout = Layout(root)
    values = params_file.load(layout.params)
    changes = _changes(root)
    if options.json:
        print(json.dumps({"root": str(root), "images": values.data.root, "changed": changes}))
        return 0
    print(f"project    {root}")
    print(f"images     {values.data.root}")
    print(f"backbone   {values.backbone.name}")
    print(f"model      {_model(layout)}")
    if not (root / "dvc.lock").exists():
        print("to run     everything: nothing has run yet. `headstart run`")
        return 0
    if not record.is_current(root):
        print(f"to run     everything: {record.NAME} names other code than that of headstart {origin.version()} here")
        return 0
    if not changes:
        print("to run     nothing: data, parameters and code are those of the results")
        return 0
    told = [f"{stage} ({_named(names)})" if names else stage for stage, names in changes.items()]
    print(f"to run     {told[0]}")
    for each in told[1:]:
        print(f"           {each}")
    print("           and after these, what depends on what they write: `headstart run`")
    return 0


def _changes(root: Path) -> dict[str, list[str]]:
    """Return what has changed since dvc.lock by stage, in the order in which stages run."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dvc", "status", "--json"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"`dvc status` failed: {done.stderr.strip()}. Run it by hand to see more.")
    found: dict[str, list[Any]] = json.loads(done.stdout)
    parameters = _changed_parameters(root)
    return {stage: _names(changed, parameters.get(stage, {})) for stage, changed in found.items()}


def _changed_parameters(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return, by stage and section, the dotted names of the parameters that differ from those in dvc.lock.

    DVC names the section alone where a stage depends on all of it.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    now, lock = yaml.load(root / "params.yaml"), root / "dvc.lock"
    found: dict[str, dict[str, list[str]]] = {}
    for stage, entry in (yaml.load(lock)["stages"] if lock.exists() else {}).items():
        for section, then in entry.get("params", {}).get("params.yaml", {}).items():
            if isinstance(then, dict) and isinstance(now.get(section), dict):
                names = [name for name, value in now[section].items() if name not in then or then[name] != value]
                found.setdefault(stage, {})[section] = [f"{section}.{name}" for name in names]
    return found


def _names(changed: list[Any], parameters: dict[str, list[str]]) -> list[str]:
    """Return the names of what changed: files, and parameters by dotted name."""
    names: list[str] = []
    for change in changed:
        for kind, entries in change.items() if isinstance(change, dict) else ():
            for name, state in entries.items() if isinstance(entries, dict) else ():
                is_new = state in ("deleted", "new") and kind == "changed outs"
                if isinstance(state, dict):  # parameters of the file `name`
                    names += [each for part in state for each in parameters.get(part) or [part]]
                else:
                    names.append(f"{name} is missing" if is_new else name)
    return names


def _named(names: list[str]) -> str:
    more = f", {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more


def _model(layout: Layout) -> str:
    from headstart.evaluation.folder import scores

    if not layout.model.exists():
        return "none yet"
    try:
        test = scores(layout.evaluation)
    except CheckError:
        return "artifacts/model"
    return f"artifacts/model, {test.accuracy:.2%} of {test.n_images} held-out images right"


def report(options: argparse.Namespace) -> int:
    """Print the report's path, and open it where a person sits at a display."""
    path = Layout(find_root(Path.cwd())).report
    if not path.is_file():
        raise ParamError(f"{path} does not exist, since no run has finished. Run `headstart run`.")
    print(path)
    if not options.path:
        open_in_browser(path.as_uri())
    return 0


def open_in_browser(url: str) -> None:
    """Open a page if a person sits at a display here."""
    has_display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_display and sys.stdout.isatty():
        webbrowser.open(url)
