"""Whether a folder holds the files that were exported, and whose they are: SHA256SUMS and the signature."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from types import ModuleType

from headstart.base.errors import CheckError
from headstart.base.reading import NotReadError, digest_of, of_file
from headstart.handover.model import file_of
from headstart.onnx.model_folder import CONFORMANCE, EXPECTED, MODEL, RECORD, SUMS

_MOST_BYTES = 10_000_000  # of SHA256SUMS


def check_signature(folder: Path, named: str | None, key: Path | None) -> None:
    """Print whose key signed the folder; CheckError if the signature is not of these files and this key."""
    if key is None:
        raise CheckError("a signature is verified with its maker's public key. Name the key's file by --key.")
    signing = _signing()
    signature = Path(named) if named else signing.beside(folder)
    signing.verify(folder, signature, key)
    print(f"verify: {signature} is a signature of every file of {folder}, by the private key of {key}")


def _signing() -> ModuleType:
    """Return headstart.handover.signing; CheckError if the extra `sign` is not installed."""
    try:
        from headstart.handover import signing
    except ImportError as error:
        if (error.name or "").startswith("headstart"):
            raise
        raise CheckError(
            f"{error.name} is not installed. Run `pip install 'headstart[sign]'`, or `make setup EXTRAS=sign`."
        ) from None
    return signing


def sign(arguments: argparse.Namespace) -> int:
    """Compare checksums, then write a signature of every file beside the folder."""
    folder = file_of(arguments.model).parent
    signing = _signing()
    listed = {*check_sums(folder), SUMS}
    signature = arguments.signature or signing.beside(folder)
    n_files = signing.sign(folder, listed, arguments.key, signature)
    print(f"sign: {signature} is a signature of the {n_files} files of {folder}")
    print(f"sign: `headstart verify {folder} --signature {signature} --key PUBLIC_KEY` verifies it")
    return 0


def check_sums(folder: Path) -> list[str]:
    """Return the names of the files in SHA256SUMS; CheckError if one is missing or has changed since the export.

    What a model cannot do without has to be listed: model.onnx, model.json, and the answers to the conformance images.
    """
    listed = folder / SUMS
    try:
        promised = [line.split("  ", 1) for line in of_file(listed, _MOST_BYTES).decode().splitlines()]
        digests = {name: digest for digest, name in promised}
    except (NotReadError, OSError, ValueError) as error:
        raise CheckError(f"{listed} cannot be read ({error}). The folder that `export` wrote was expected.") from None
    if missing := sorted({MODEL, RECORD, f"{CONFORMANCE}/{EXPECTED}"} - digests.keys()):
        raise CheckError(f"{listed} does not list {', '.join(missing)}. Copy the whole folder again.")
    for name, digest in digests.items():
        if not is_inside(name):
            raise CheckError(f"{listed} lists '{name}'. A file inside the folder was expected. Do not use this model.")
        try:
            found = digest_of(folder / name)
        except (NotReadError, OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise CheckError(f"{folder / name} cannot be read ({said}). Copy the whole folder again.") from None
        if found != digest:
            raise CheckError(
                f"{folder / name} has SHA-256 {found[:12]}.., but {SUMS} lists {digest[:12]}... The exported file was"
                " expected. Copy the whole folder again."
            )
    return list(digests)


def is_inside(name: str) -> bool:
    """Return whether a name that a file of the folder gives can only be that of a file inside it."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def add_sign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `sign` to the parser of `headstart`."""
    command = commands.add_parser("sign", help="sign every file of the model with a key of an elliptic curve")
    command.add_argument("model", type=Path, metavar="MODEL")
    command.add_argument("--key", type=Path, required=True, metavar="PRIVATE_KEY", help="as PEM")
    command.add_argument("--signature", type=Path, metavar="FILE", help="to write (default: MODEL.sig beside MODEL)")
    command.set_defaults(run=sign)
