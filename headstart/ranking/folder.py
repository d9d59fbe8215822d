"""ranking.json: the backbones that were compared, as the stage `rank` writes them and the report reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.base.files import replacing_folder
from headstart.base.records import Record

_RECORD = "ranking.json"
_WINS, _CANNOT = "wins", "cannot win"


class Entry(Record):
    """A candidate."""

    label: str
    name: str  # LIBRARY/NAME
    weights: str
    licence: str
    obstacles: list[str]  # why it cannot win; none: it can
    input_px: int
    n_features: int
    megabytes: float
    milliseconds: float  # for one image on one thread
    n_images: int  # that it was scored on
    accuracy: float  # in cross-validation
    accuracy_low: float
    accuracy_high: float
    log_loss: float
    log_loss_se: float
    head: str  # that was best: kind and levels
    behind: float | None  # the best that may win, by the criterion on the same images; None: it is that
    behind_se: float | None
    is_out: bool  # before it had seen all images
    knn: float
    logme: float
    h_score: float


class RankingRecord(Record):
    """ranking.json."""

    entries: list[Entry]  # the best first, those that are out last; empty: nothing was ranked
    winner: str | None  # its label; None: nobody may win
    criterion: str  # what the winner is lowest in
    parts: list[int]  # images of each part of the race
    n_classes: int
    processor: str  # that times were measured on
    runtime: str
    threads: int

    @property
    def best(self) -> Entry | None:
        """The winner, if anybody may win."""
        return next((entry for entry in self.entries if entry.label == self.winner), None)

    @property
    def second(self) -> Entry | None:
        """The best of the others that might have won and saw all images, if there is one."""
        others = (each for each in self.entries if each.label != self.winner and not each.obstacles)
        return next((each for each in others if not each.is_out), None)

    @property
    def saved(self) -> float:
        """The share of the time in the networks that the race saved, by the milliseconds of each."""
        whole = sum(each.milliseconds for each in self.entries) * self.parts[-1]
        return 1 - sum(each.milliseconds * each.n_images for each in self.entries) / whole

    def words(self) -> list[str]:
        """Return the outcome in sentences."""
        return [self._won(), *self._missed(), self._raced()]

    def _won(self) -> str:
        best, second = self.best, self.second
        if best is None:
            named = "; ".join(f"{each.label}: {' and '.join(each.obstacles)}" for each in self.entries)
            return f"there is no winner, for none may win ({named})"
        told = f"the winner is {best.label}: {best.accuracy:.1%} right in cross-validation on {best.n_images} images"
        if second is None or second.behind is None or second.behind_se is None:
            return f"{told}; no other that may win has seen all of them"
        is_clear = second.behind > 2 * second.behind_se
        sure = "which is more than chance" if is_clear else "which may be chance"
        return (
            f"{told}, {self.criterion.replace('_', ' ')} lower than that of {second.label} by {second.behind:.4f}"
            f" ± {second.behind_se:.4f} (standard error), {sure}"
        )

    def _missed(self) -> list[str]:
        if self.best is None:
            return []
        better = [each for each in self.entries if each.obstacles and each.behind is not None and each.behind < 0]
        return [f"better would be {each.label}, but {' and '.join(each.obstacles)}" for each in better]

    def _raced(self) -> str:
        out = [each for each in self.entries if each.is_out]
        if len(self.parts) == 1:
            return f"all saw all {self.parts[0]} images: there was no race"
        if not out:
            return f"the race over {', '.join(map(str, self.parts))} images dropped none, and saved nothing"
        named = ", ".join(f"{each.label} after {each.n_images}" for each in out)
        return (
            f"the race dropped {named} of {self.parts[-1]} images, and saved {self.saved:.0%} of the time in networks"
        )


OFF = RankingRecord(
    entries=[],
    winner=None,
    criterion="log_loss",
    parts=[],
    n_classes=0,
    processor="",
    runtime="",
    threads=0,
)


def write(folder: Path, record: RankingRecord) -> None:
    """Write ranking.json."""
    with replacing_folder(folder) as beside:
        record.write(beside / _RECORD)


def read(folder: Path) -> RankingRecord | None:
    """Return ranking.json; None where nothing was ranked. CheckError if the stage `rank` has not written it."""
    record = RankingRecord.read(folder / _RECORD, "rank")
    return record if record.entries else None


def shown(record: RankingRecord) -> list[dict[str, str]]:
    """Return the table as a person reads it, a row a candidate."""
    return [_cells(each, each.label == record.winner) for each in record.entries]


def lines(record: RankingRecord) -> list[str]:
    """Return the table in lines for a terminal; `>` stands before the winner, `-` before what cannot win."""
    marks = {_WINS: ">", _CANNOT: "-", "": " "}
    found = shown(record)
    rows = [("", *list(found[0])[2:])]
    rows += [(f"{marks[row['outcome']]} {row['backbone']}", *list(row.values())[2:]) for row in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    last = len(row) - 1
    cells = [
        cell.ljust(width) if number in (0, last) else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _cells(each: Entry, is_winner: bool) -> dict[str, str]:
    return {
        "backbone": each.label,
        "outcome": _WINS if is_winner else _CANNOT if each.obstacles else "",  # Prefect's page reads `-` as Markdown
        "accuracy": f"{each.accuracy:.1%}",
        "95 % interval": f"{each.accuracy_low:.1%} to {each.accuracy_high:.1%}",
        "log loss": f"{each.log_loss:.3f}",
        "ms": f"{each.milliseconds:.1f}",
        "MB": f"{each.megabytes:.1f}",
        "kNN": f"{each.knn:.1%}",
        "LogME": f"{each.logme:.3f}",
        "H": f"{each.h_score:.2f}",
        "images": f"{each.n_images}",
        "licence": each.licence,
    }
