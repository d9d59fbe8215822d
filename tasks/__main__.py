"""The launcher of stages: `python -m tasks STAGE`.

- `python -m tasks embed` runs one stage, as dvc.yaml does.
- `python -m tasks backbone --list resnet18` shows the layer groups that `finetune.unfreeze` counts.
- `python -m tasks finetune --find-lr` proposes a learning rate.
- `python -m tasks set data.root=photos` checks and writes a parameter; without assignments it only checks params.yaml.
- `python -m tasks summary` prints the accuracy, where model and report are, and what to do next.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil

from headstart import params_file
from headstart.base import changed, disk, progress, seals
from headstart.base.errors import (
    ChangedError,
    HeadstartError,
    ParamError,
    RejectedError,
    UnreachableError,
    did_you_mean,
)
from headstart.base.exits import noting_ctrl_c, status_of
from headstart.layout import Layout
from headstart.params import Params

_MODULES = pkgutil.iter_modules([str(Path(__file__).parent)])
STAGES = sorted(module.name for module in _MODULES if not module.name.startswith("_"))
_PARENT_GONE = 143  # the status after SIGTERM
_INTERRUPTED = "interrupted; earlier results are unchanged"


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status: 0, 1 for a user's mistake, 2 for a wrong command, 130 for Ctrl-C."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\nStages: {', '.join(STAGES)}")
        return 0 if arguments else 2
    name, *rest = arguments
    warnings.filterwarnings("ignore", module=r"PIL\..*")  # `validate` reports what is wrong with an image
    progress.begin("params" if name == "set" else name)
    with noting_ctrl_c() as ctrl_c:
        return _run_or_tell(name, rest, ctrl_c)


def _run_or_tell(name: str, rest: list[str], ctrl_c: threading.Event) -> int:
    """Run a command; return its exit status, and tell why it stopped."""
    root = Path.cwd()
    layout = Layout(root)
    try:
        if name == "set":
            params_file.assign(layout.params, rest, lambda values: check_data(root, values))
        elif name == "summary":
            from headstart import summary

            summary.tell(Layout.of(root, params_file.load(layout.params)), sys.stdout)
        elif name not in STAGES:
            hint = did_you_mean(name, STAGES)
            raise ParamError(f"'{name}' is not a stage.{hint} One of {', '.join(STAGES)} was expected.")
        elif (name, *rest[:1]) == ("backbone", "--list") and len(rest) == 2:
            _list_groups(rest[1], layout)
        elif (name, *rest) == ("finetune", "--find-lr"):
            values = params_file.load(layout.params)
            importlib.import_module(f"{__package__}.finetune").find_lr(values, Layout.of(root, values))
        elif rest:
            raise ParamError(
                f"unexpected argument '{rest[0]}'. A stage takes no argument: its parameters are in params.yaml."
            )
        else:
            _run(name, root)
    except BaseException as error:
        if ctrl_c.is_set() or isinstance(error, KeyboardInterrupt):
            progress.fail(_INTERRUPTED)
            progress.emit("interrupted")
            return 130
        told = error if isinstance(error, HeadstartError) else disk.of(error)
        if told is None:
            raise
        if isinstance(error, ChangedError):
            with contextlib.suppress(disk.DiskError):
                changed.note(layout.failed, str(error))
        may_heal, rejected = isinstance(error, UnreachableError), isinstance(error, RejectedError)
        progress.fail(str(told), may_heal=may_heal, rejected=rejected)
        return 1
    return 0


def _run(stage: str, root: Path) -> None:
    _stop_with_parent()
    values = params_file.load(root / "params.yaml")
    layout = Layout.of(root, values)
    seals.check(root, stage)
    seals.sweep(root, stage)
    began = time.monotonic()
    importlib.import_module(f"{__package__}.{stage}").run(values, layout)
    seals.write(root, stage)
    if progress.is_muted():  # another process reports, and notes the time
        return
    _note_time(stage, time.monotonic() - began, layout)


def _list_groups(name: str, layout: Layout) -> None:
    from headstart.backbones import networks
    from headstart.onnx.backbone_folder import LAST

    wanted = params_file.load(layout.params).backbone
    backbone, groups = networks.groups_of(wanted, name, layout.weights)
    width = max(len(group.name) for group in groups)
    print(f"{backbone.name}: {len(groups)} layer groups from the input to the head\n")
    features = {level.name: f"{level.width:,}" for level in backbone.levels}
    print(f"  {'group':{width}}  {'parameters':>13}  {'features':>8}  trained if finetune.unfreeze is at least")
    for number, group in enumerate(groups):
        level = features.get(group.name, "")
        print(f"  {group.name:{width}}  {group.n_parameters:13,}  {level:>8}  {len(groups) - number}")
    print(f"  {'head':{width}}  {'':13}  {features[LAST]:>8}  0: always; these features are train_head.levels `last`")


def check_data(root: Path, values: Params) -> None:
    """Raise DataError unless data.root holds images that the stage `validate` would read."""
    from headstart.listing import list_images

    layout = Layout.of(root, values)
    if layout.data_root != layout.digits:  # `sample` writes the default dataset later
        list_images(layout.data_root, layout.data, values.data.layout, values.data.allow_outside)


def _note_time(stage: str, seconds: float, layout: Layout) -> None:
    """Add the time of a stage to timings.json, which neither git nor DVC tracks; a broken file is replaced."""
    from headstart.base.files import write_json

    try:
        timings = dict(json.loads(layout.timings.read_bytes()))
    except (OSError, ValueError, TypeError):
        timings = {}
    with contextlib.suppress(disk.DiskError):  # the results are there
        write_json(layout.timings, {**timings, stage: {"seconds": round(seconds, 2)}})


def _stop_with_parent() -> None:
    """End this process when its parent is gone, so that a killed `dvc repro` leaves no stage behind."""
    if "DVC_STAGE" not in os.environ:  # started by hand, perhaps to outlive the shell
        return
    parent = os.getppid()
    shell = _shell_between(parent)
    grandparent = shell and shell.ppid()

    def watch() -> None:
        while os.getppid() == parent and (shell and shell.ppid()) == grandparent:
            time.sleep(0.5)
        progress.fail(f"the process that started this stage is gone: {_INTERRUPTED}")
        os._exit(_PARENT_GONE)

    threading.Thread(target=watch, daemon=True).start()


def _shell_between(parent: int) -> psutil.Process | None:
    """Return DVC's shell if it waits for this command: bash is replaced by its last command, dash is not."""
    stage = os.environ["DVC_STAGE"]
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(parent)
        if " ".join(process.cmdline()).endswith((f"tasks {stage}", f"headstart stage {stage}")):
            return process
    return None


if __name__ == "__main__":
    sys.exit(status_of("tasks", lambda: main(sys.argv[1:])))
