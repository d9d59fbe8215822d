"""The findings as a table: for a spreadsheet, which is read back, and in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

from headstart import reviewed
from headstart.base.errors import DataError, ParamError, count_and_name, did_you_mean
from headstart.base.files import write_text
from headstart.reviewing.answers import ACTIONS, Action, Answer, Changes, Decisions, answered, changes
from headstart.reviewing.cases import Case, Cases
from headstart.reviewing.desk import check_label

# People fill in `decision` and, for `label`, `new_label`. `before` is what was decided when the table was written.
COLUMNS = (
    *("kind", "severity", "path", "split", "label", "suggested", "decision", "new_label", "reason", "to_do"),
    *("other_path", "image_id", "other_image_id", "before"),
)
_NEEDED = ("kind", "decision", "new_label", "image_id", "other_image_id", "before")
_WORDS = [word for word in ACTIONS if word != "forget"]
_ORDER = {"drop": 0, "keep": 2}  # a `keep` says nothing of what another line about the image changes, so it comes last
_MAX_SHOWN = 60  # characters of a cell in a terminal


class Line(NamedTuple):
    """A line of the table that a person has filled in."""

    number: int
    case: Case
    before: Answer | None
    answer: Answer | None  # None: no decision any more


def write(file: Path, cases: Cases, decisions: Decisions) -> None:
    """Write the table; ParamError if the file exists, since it may hold decisions."""
    if file.exists():
        raise ParamError(
            f"{file} exists, and may hold decisions. A new name was expected. Read it with --from, or remove it."
        )
    rows = []
    for case in cases.all:
        each, answer = case.finding, answered(case, decisions)
        told = (answer.action, answer.label) if answer else ("", "")
        rows.append(
            (
                *(each.kind, each.severity, each.path, each.split, each.label, each.suggested or "", *told),
                *(each.reason, each.to_do, each.other_path or "", each.image_id, each.other_image_id or ""),
                _before(answer),
            )
        )
    write_text(file, "\ufeff" + reviewed.spreadsheet(COLUMNS, rows))  # the mark tells spreadsheets that it is UTF-8


def read(file: Path, cases: Cases, decisions_file: Path) -> tuple[int, int]:
    """Write what people filled in to reviewed.csv; return how many lines had an effect, and how many found no finding.

    DataError, and nothing is written, where a line is not clear, or an image was decided otherwise since.
    """
    try:
        rows = reviewed.cells(file, COLUMNS, _NEEDED)
    except FileNotFoundError:
        raise ParamError(f"{file} does not exist. Write it first: `headstart review --csv {file}`.") from None
    of: dict[tuple[str, str, str], Case] = {}
    for case in cases.all:
        of.setdefault((case.finding.kind, case.finding.image_id, case.finding.other_image_id or ""), case)
    lines, n_gone = [], 0
    for number, cells in rows:
        where = f"{file.name}, line {number}"
        before = _parsed(cells["before"].partition(":")[0], cells["before"].partition(":")[2], where)
        answer = _parsed(cells["decision"].strip(), cells["new_label"], where)
        if answer == before:
            continue
        found = of.get((cells["kind"].strip(), cells["image_id"].strip(), cells["other_image_id"].strip()))
        if found is None:
            n_gone += 1
            continue
        if answer and answer.action in ("label", "label other"):
            _check_label(answer.label, cases, where)
        lines.append(Line(number, found, before, answer))
    _check_clear(lines, file.name)
    lines.sort(key=lambda line: _ORDER.get(line.answer.action, 1) if line.answer else -1)
    with reviewed.changing(decisions_file) as decisions:
        others = [
            line.case.finding.path for line in lines if answered(line.case, decisions) not in (line.before, line.answer)
        ]
        if others:
            raise DataError(
                f"{len(others)} images were decided otherwise since {file.name} was written ({count_and_name(others)})."
                f" Nothing is changed. Look at them in {decisions_file.name}, write the table anew with --csv, and"
                " fill it in again."
            )
        return sum(_carried_out(cases, decisions, line) for line in lines), n_gone


def table(cases: Cases, decisions: Decisions, with_decided: bool) -> list[str]:
    """Return the findings as lines for a terminal, open ones or all; then the decisions that no finding asks about."""
    rows = [("finding", "severity", "image", "label", "reason", "decided")]
    n_decided = 0
    for case in cases.all:
        each, answer = case.finding, answered(case, decisions)
        n_decided += answer is not None
        if answer is None or with_decided:
            label = f"{each.label}, perhaps {each.suggested}" if each.suggested else each.label
            rows.append((each.kind, each.severity, each.path, label, each.reason, _before(answer)))
    if with_decided:
        rows += [
            ("", "", each.path, each.label, "by an earlier audit", _said(each)) for each in _earlier(cases, decisions)
        ]
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    if n_decided and not with_decided:
        lines.append(f"{n_decided} more are decided: --all shows them too")
    return lines if len(rows) > 1 else lines[1:] or ["nothing was found"]


def _earlier(cases: Cases, decisions: Decisions) -> list[reviewed.Decision]:
    """Return the decisions about images that no finding is about: the audit saw them as decided, or not at all."""
    asked = {image_id for case in cases.all for image_id in (case.finding.image_id, *case.cluster)}
    return sorted((each for each in decisions.values() if each.image_id not in asked), key=lambda each: each.path)


def _said(decision: reviewed.Decision) -> str:
    what = {"group": decision.group, "split": decision.split}
    changed = [f"{name} {value}" for name, value in what.items() if value]
    said = {"keep": "kept", "drop": "dropped", "change": ", ".join(["changed", *changed])}
    return said[decision.decision]


def printable(text: str) -> str:
    """Return a text that a terminal shows as it is: no control characters, and not too long."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 1]}…"


def _before(answer: Answer | None) -> str:
    return "" if answer is None else f"{answer.action}:{answer.label}" if answer.label else answer.action


def _parsed(word: str, label: str, where: str) -> Answer | None:
    word = " ".join(word.lower().split()) or ("label" if label.strip() else "")
    if not word:
        return None
    if word not in _WORDS:
        hint = did_you_mean(word, _WORDS)
        raise DataError(
            f"{where}: decision is '{word[:80]}'.{hint} One of {', '.join(_WORDS)}, or nothing, was expected."
        )
    is_label = word in ("label", "label other")
    if label.strip() and not is_label:
        raise DataError(
            f"{where}: new_label is '{label[:80]}' beside the decision {word}. Nothing was expected there, or the"
            " decision `label`."
        )
    return Answer(cast(Action, word), label if is_label else "")


def _check_label(label: str, cases: Cases, where: str) -> None:
    try:
        check_label(label, cases, may_be_new=False)
    except DataError as error:
        raise DataError(f"{where}: {error} A new class is made on the page of `headstart review`.") from None


def _check_clear(lines: list[Line], name: str) -> None:
    """Raise DataError where lines want an image dropped and used."""
    drops = {line.case.finding.image_id for line in lines if line.answer and _drops(line)}
    torn = [
        line
        for line in lines
        if line.case.finding.image_id in drops
        and line.answer
        and not _drops(line)
        and "other" not in line.answer.action
    ]
    if torn:
        raise DataError(
            f"{name}, line {torn[0].number}: {torn[0].case.finding.path} is dropped by another line, and"
            f" '{torn[0].answer.action if torn[0].answer else ''}' here. One of them was expected. Nothing is changed."
        )


def _drops(line: Line) -> bool:
    assert line.answer is not None
    return line.answer.action == "drop" or (line.answer.action == "accept" and line.case.finding.kind == "odd")


def _carried_out(cases: Cases, decisions: dict[str, reviewed.Decision], line: Line) -> bool:
    if answered(line.case, decisions) == line.answer:
        return False
    new: Changes = changes(cases, decisions, line.case, line.answer or Answer("forget"))
    decisions |= {each: decision for each, decision in new.items() if decision}
    for image_id in [each for each, decision in new.items() if decision is None]:
        decisions.pop(image_id, None)
    return True
