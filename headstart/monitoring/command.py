"""`headstart monitor MODEL IMAGES...`: are the images that a model meets still like those that it was tested on?"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headstart.base.errors import CheckError, printable
from headstart.base.files import sha256_of
from headstart.base.terminal import styled
from headstart.handover import asked
from headstart.handover.asked import Told
from headstart.handover.cli import BAD_IMAGES
from headstart.handover.model import NOVEL_ABOVE, Model
from headstart.monitoring import keeping, reference, scores, watch
from headstart.monitoring.ledger import Ledger
from headstart.monitoring.reference import Reference
from headstart.monitoring.watch import FALSE_ALARM, Batch, Seen

DRIFT = 3  # exit status while the ledger has an alarm
_BARS = "▁▂▃▄▅▆▇█"
_LAST = 40  # looks that are drawn


def monitor(arguments: argparse.Namespace) -> int:
    """Count the images in the ledger, and print what they say; 3 after an alarm, else 2 if some cannot be read."""
    if isinstance(sys.stdin, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdin.reconfigure(errors="surrogateescape")
    model = Model(arguments.model)
    known = reference_of(model)
    path = arguments.ledger or ledger_of(model.file)
    paths = asked.named(arguments.images, "monitor")
    unread: list[str] = []
    not_written = None

    def tell(text: str) -> None:
        unread.append(text)
        _say(text)

    with keeping.held(path):
        opened = keeping.opened(path, known, arguments.false_alarm, FALSE_ALARM, is_new=arguments.new)
        ledger = opened.ledger
        with asked.asking(model, arguments) as asking:
            images = gathered(asking(paths), tell)
        seen = count(ledger, known, model, images, now())
        try:
            if said := opened.write():
                _say(said)
        except CheckError as error:
            not_written = error  # told below what was found
    told = watch.told(seen, ledger, known, model.classes)
    if arguments.json:
        print(json.dumps(told))
    else:
        print("\n".join(_table(seen, ledger, known, model)))
        for warning in told["warnings"]:
            _say(styled(f"warning: {warning}", "warning", sys.stderr))
    if not_written:
        raise not_written
    if ledger.alarm:
        return DRIFT
    return BAD_IMAGES if unread else 0


def reference_of(model: Model, model_sha256: str | None = None) -> Reference:
    """Return what is normal for a model; CheckError if its folder does not say.

    `model_sha256`: of the model as it was loaded, where its file may have changed since; None takes that of the file.
    """
    known = reference.read(model.file, model_sha256 or sha256_of(model.file))
    if len(known.shares) != len(model.classes) or "novelty" not in model.output_names:
        raise CheckError(f"{model.file} and its reference.json differ in their classes. Take the model's folder again.")
    return known


def ledger_of(model: Path) -> Path:
    """Return where the ledger of a model.onnx is: beside its folder, which may be replaced or read-only."""
    folder = model.resolve().parent
    if not folder.name:
        raise CheckError(
            f"{model} lies in the root of the file system, and no ledger fits beside that. Name one with --ledger."
        )
    return folder.with_name(f"{folder.name}.monitor.json")


def gathered(answers: Iterator[Told | str], tell: Callable[[str], object]) -> Batch:
    """Return the outputs for all images that can be read, and `tell` of the others; CheckError if there are none."""
    found = []
    for each in answers:
        if isinstance(each, str):
            tell(f"{each} An image was expected.")
        else:
            found.append(each)
    if not found:
        raise CheckError("none of the images can be read. At least one was expected.")
    outputs = {name: np.concatenate([each.outputs[name] for each in found]) for name in found[0].outputs}
    return Batch(outputs, [each.digest for each in found], [each.path for each in found])


def count(ledger: Ledger, known: Reference, model: Model, images: Batch, time: str) -> Seen:
    """Count images that have come together, in a random order, and look at them together."""
    order = ledger.order(images.digests)
    n_counted = ledger.add(
        {name: array[order] for name, array in images.outputs.items()},
        [images.digests[row] for row in order],
        [images.names[row] for row in order],
        time,
    )
    return watch.look(ledger, known, images, model.abstain_below, NOVEL_ABOVE, time, n_counted)


def now() -> str:
    """Return the time for a ledger."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _table(seen: Seen, ledger: Ledger, known: Reference, model: Model) -> list[str]:
    """Return the lines for people."""
    look, alarm = seen.look, ledger.alarm
    again = look.n_images - seen.n_counted
    lines = [
        f"{look.n_images} images, {seen.n_counted} of them new to the ledger"
        + (f" ({again} seen before are not counted again)" if again else "")
        + f"; {ledger.n_images} in all, beside {known.n_images} held-out ones"
    ]
    if alarm:
        lines.append(
            styled("drift      ALARM", "bad", sys.stdout)
            + f" at image {alarm.n_images}, {printable(alarm.image)}, by {scores.WORDS[alarm.score]}"
            f" ({alarm.time}). Without a change this happens once in {1 / ledger.false_alarm:.0f} ledgers, ever"
        )
    else:
        lines.append(styled("drift      none shown", "good", sys.stdout) + f"; an alarm needs {ledger.limit:.0f} to 1")
    for name, made in ledger.bets.items():
        lines.append(
            f"  {scores.WORDS[name]:<11} {_odds(made.log_capital):>12} to 1 now, {_odds(made.log_highest)} at most"
        )
    if look.p_value is not None:
        lines.append(f"this batch  p = {look.p_value:.3f} that such images come from where the held-out ones do")
    lines += [
        "",
        f"{'':<22}{'now':>9}  {'held out':>9}",
        f"{'mean confidence':<22}{look.confidence:>9.1%}  {known.confidence:>9.1%}",
        f"{'abstains':<22}{look.abstaining:>9.1%}  {known.abstaining:>9.1%}",
        f"{f'novelty above {NOVEL_ABOVE}':<22}{look.novel:>9.1%}  {known.novel:>9.1%}",
        f"{'accuracy':<22}{look.accuracy:>9.1%}  {known.accuracy:>9.1%}   now: estimated without labels,"
        f" {seen.accuracy.low:.1%} to {seen.accuracy.high:.1%}",
    ]
    if alarm:
        lines.append(f"{'':<22}too high where a model is sure of images of another kind: label some to know")
    lines += _mix(seen, known, model.classes)
    if len(ledger.looks) > 1:
        lines += ["", *_over_time(ledger)]
    return lines


def _mix(seen: Seen, known: Reference, classes: Sequence[str], most: int = 12) -> list[str]:
    """Return the classes whose share has changed most, with intervals."""
    order = sorted(range(len(classes)), key=lambda row: -abs(seen.mix[row].share - known.shares[row]))
    shown = sorted(order[:most])
    width = max(20, *(len(printable(classes[row])) for row in shown))
    lines = ["", f"{'share of class':<{width}}  {'now':>9}  {'held out':>9}"]
    for row in shown:
        share = seen.mix[row]
        lines.append(
            f"{printable(classes[row]):<{width}}  {share.share:>9.1%}  {known.shares[row]:>9.1%}"
            f"   {share.low:.1%} to {share.high:.1%}"
        )
    if len(classes) > most:
        lines.append(f"and {len(classes) - most} more, which have changed less: --json has all")
    return lines


def _over_time(ledger: Ledger) -> list[str]:
    """Return a line of bars for each figure, a bar a look."""
    looks = ledger.looks[-_LAST:]
    nothing = -math.log10(ledger.limit)  # the evidence before the first image
    figures = {
        "evidence": ([look.evidence for look in looks], nothing, 0.0, "full at the alarm"),
        "accuracy": ([look.accuracy for look in looks], 0.0, 1.0, "estimated"),
        "abstains": ([look.abstaining for look in looks], 0.0, 1.0, ""),
        "novel": ([look.novel for look in looks], 0.0, 1.0, ""),
    }
    lines = [f"the last {len(looks)} looks, from {looks[0].time}"]
    for name, (values, low, high, words) in figures.items():
        steps = [(min(max(value, low), high) - low) / (high - low) for value in values]
        bars = "".join(_BARS[round(step * (len(_BARS) - 1))] for step in steps)
        lines.append(f"  {name:<11} {bars}  {words}".rstrip())
    return lines


def _odds(log_capital: float) -> str:
    tens = log_capital / math.log(10)
    if abs(tens) >= 5:
        return f"1e{tens:.0f}"
    return f"{10**tens:.3g}" if tens < 2 else f"{10**tens:,.0f}"


def _say(text: str) -> None:
    print(f"monitor: {text}", file=sys.stderr)


def _chance(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `headstart` (headstart/commands/main.py)."""
    command = commands.add_parser(
        "monitor",
        help="say whether new images are still like those that the model was tested on",
        description="Count images in a ledger and compare them with the model's held-out images. Exit status 3: drift.",
    )
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="artifacts/model, or a model.onnx with its reference.json")
    add("images", nargs="+", metavar="IMAGE", help="files, folders, patterns; - reads a list on stdin")
    add("--ledger", type=Path, metavar="FILE", help="what was met so far (default: beside MODEL, MODEL.monitor.json)")
    chance = f"of ever raising an alarm where nothing changes, at most (default: {FALSE_ALARM})"
    add("--false-alarm", type=_chance, metavar="CHANCE", help=chance)
    add("--new", action="store_true", help="begin a new ledger, after an alarm was dealt with; the old one is kept")
    add("--json", action="store_true", help="print one JSON object")
    asked.add_limits(command)
    command.set_defaults(run=monitor)
