"""artifacts/adapt: which ways to adapt were tried and which was taken, adapted.json, and its head, head.onnx."""

from __future__ import annotations

from pathlib import Path

from headstart.base.errors import CheckError
from headstart.base.files import promised, replacing_folder
from headstart.base.records import Digest, Record
from headstart.onnx.head_folder import HEAD as HEAD

NONE = "none"
_RECORD = "adapted.json"
_STAGE = "adapt"


class WayRecord(Record):
    """A way to adapt, and what the criterion says of it."""

    method: str  # a name of adapting.methods; `none` leaves the head as it is
    score: float  # mean over images, the higher the better
    gain: float  # by how much it is higher than that of `none`
    standard_error: float  # of the gain


class TrialRecord(Record):
    """What was tried on the images without labels. None of their labels took part."""

    choose_by: str  # a name of adapting.criteria
    auc: float | None  # of a classifier that tells them from the others within guessed classes; None: too few images
    p_value: float | None  # the chance of so high an AUC where they are alike
    ways: list[WayRecord]  # `none` first; empty where none was tried
    n_source: int  # images with labels that were looked at, of train and val
    n_target: int  # images without


class AdaptRecord(Record):
    """adapted.json."""

    chosen: str  # `none` unless one is better than it by more than chance
    why: str
    trial: TrialRecord | None  # None where the stage is off
    files: dict[str, Digest]  # beside this one

    @property
    def is_adapted(self) -> bool:
        """Whether there is an adapted head."""
        return self.chosen != NONE


def read(folder: Path) -> AdaptRecord:
    """Return what adapted.json says; CheckError if `adapt` has not written it."""
    return AdaptRecord.read(folder / _RECORD, _STAGE)


def write(folder: Path, record: AdaptRecord) -> None:
    """Write adapted.json: the last, since it names the digest of head.onnx."""
    record.write(folder / _RECORD)


def write_off(folder: Path, why: str) -> None:
    """Write that nothing was tried."""
    with replacing_folder(folder) as beside:
        write(beside, AdaptRecord(chosen=NONE, why=why, trial=None, files={}))


def piece(folder: Path) -> Path:
    """Return the adapted head.onnx; CheckError unless there is one with the digest that adapted.json names."""
    record = read(folder)
    if not record.is_adapted:
        raise CheckError(f"{folder} holds no {HEAD}: no way to adapt was better than none. Run `dvc repro evaluate`.")
    return promised(folder, HEAD, record.files, _STAGE)
