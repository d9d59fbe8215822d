"""JSON artefacts as typed records: one model documents, writes and reads an artefact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from headstart.base.errors import CheckError
from headstart.base.files import existing, write_json, write_text

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # a SHA-256

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound="Record")
_ZEROS = "0" * 64


class Record(BaseModel):
    """The contents of a JSON artefact. Each package defines its own; `model_json_schema()` describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def write(self, path: Path) -> None:
        """Write the record as JSON, its fields in the order of their definition."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path, stage: str) -> Self:
        """Return the record at `path`; CheckError, naming the stage that writes it, if it is missing or invalid."""
        return _validated(cls, path, stage)


class Sealed(Record):
    """A record that is an output by itself: it ends with the digest of its own file, which `read` checks."""

    sha256: str = ""  # of the file with zeros in its place; empty in files of earlier versions

    def write(self, path: Path) -> None:
        """Write the record as JSON, with its digest as the last field."""
        value = self.model_dump(mode="json", exclude={"sha256"})
        text = json.dumps({**value, "sha256": _ZEROS}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(path, text.replace(_ZEROS, hashlib.sha256(text.encode()).hexdigest()))

    @classmethod
    def read(cls, path: Path, stage: str) -> Self:
        """Return the record at `path`; CheckError, naming the stage, if it is missing, damaged or invalid."""
        record = super().read(path, stage)
        digest = record.sha256.encode()
        whole = path.read_bytes().replace(digest, _ZEROS.encode()) if digest else b""
        if digest and hashlib.sha256(whole).hexdigest().encode() != digest:
            raise CheckError(
                f"{path} is damaged: its bytes have changed since they were written. Run `dvc repro --force {stage}`."
            )
        return record


def _validated(kind: type[M], path: Path, stage: str) -> M:
    try:
        return kind.model_validate_json(existing(path, stage).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = f"{where}: {first['msg']}" if where else first["msg"]
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise CheckError(
            f"{path} is not what the stage {stage} writes ({said}{more}). Run `dvc repro --force {stage}`."
        ) from None


def read_each(path: Path, kind: type[R], stage: str) -> dict[str, R]:
    """Return the records of an artefact that maps names to records; CheckError as in `Record.read`."""

    class Named(RootModel[dict[str, kind]]):  # type: ignore[valid-type]
        pass

    return _validated(Named, path, stage).root


def write_each(path: Path, records: Mapping[str, Record]) -> None:
    """Write an artefact that maps names to records."""
    write_json(path, {name: record.model_dump(mode="json") for name, record in records.items()})
