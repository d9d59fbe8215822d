"""A signature over every file of a finished model, by OpenSSF's model-signing (the extra `sign`) and a key on disk.

It is a Sigstore bundle beside the folder, `model.sig` for `model/`: inside, it would be a file that the model's makers
did not export, and DVC would take the model for changed. Every file counts, SHA256SUMS and hidden files too.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from model_signing import hashing, signing, verifying

from headstart.base.errors import CheckError, count_and_name, counted

PASSWORD = "HEADSTART_KEY_PASSWORD"  # the environment variable with the password of an encrypted private key
_MISMATCH = "Signature mismatch: "  # the library's words for another folder, before a list of differences


def beside(folder: Path) -> Path:
    """Return where the signature of `folder` lies unless another place is named."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}.sig")


def sign(folder: Path, listed: set[str], key: Path, signature: Path) -> int:
    """Write the signature of `folder`, whose files are `listed`, by a private key; return how many files it covers.

    CheckError if the folder holds other files, if the signature would lie in it, or if the key is none.
    """
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    if others := sorted(found - listed):
        raise CheckError(
            f"{folder} holds {counted(len(others), 'file', 'files')} that `export` did not write"
            f" ({count_and_name(others)}). Remove them: what is signed is the model as it was exported."
        )
    if signature.resolve().is_relative_to(folder.resolve()):
        raise CheckError(f"{signature} is in the folder that it signs. A place outside {folder} was expected.")
    with _key_errors(key, "private"):
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=key, password=_password())  # type: ignore[arg-type]  # bytes are right
    config.set_hashing_config(_every_file())
    partial = signature.with_name(f"{signature.name}.partial")
    try:
        config.sign(folder, partial)
        partial.replace(signature)
    except (OSError, ValueError) as error:  # ValueError: of a link
        partial.unlink(missing_ok=True)
        raise CheckError(
            f"{folder} cannot be signed ({error}). Plain files, and a place to write were expected."
        ) from None
    return len(found)


def verify(folder: Path, signature: Path, key: Path) -> None:
    """Raise CheckError unless `signature` is of exactly these files, by the private key that belongs to `key`."""
    with _key_errors(key, "public"):
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(_every_file())
    try:
        config.verify(folder, signature)
    except FileNotFoundError:
        raise CheckError(
            f"{signature} does not exist. The signature that came with {folder} was expected. Name it by --signature."
        ) from None
    except InvalidSignature:
        raise CheckError(
            f"{signature} was altered, or {key} is not the key that it was made with. Do not use the model."
        ) from None
    except Exception as error:  # of a dozen kinds, for all that a file may be instead of a signature
        said = str(error)
        if said.startswith(_MISMATCH):
            differences: list[str] = ast.literal_eval(said.removeprefix(_MISMATCH))
            said = "; ".join(each.partition(": Expected '")[0] for each in differences)
            raise CheckError(
                f"{folder} is not what was signed: {said}. Copy the whole folder again; do not use it as it is."
            ) from None
        if said.startswith("Key mismatch"):
            raise CheckError(
                f"{signature} was made with another key than {key} belongs to. Do not use the model, unless you trust"
                " that other key."
            ) from None
        raise CheckError(
            f"{signature} is no signature of a model ({type(error).__name__}: {said.splitlines()[0] if said else ''})."
            " The file that `headstart sign` wrote was expected."
        ) from None


def _every_file() -> hashing.Config:
    """Return what is hashed: every file, those of git too, and no links."""
    config = hashing.Config()  # type: ignore[no-untyped-call]
    return config.use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)


def _password() -> bytes | None:
    given = os.environ.get(PASSWORD)
    return given.encode() if given else None


@contextmanager
def _key_errors(key: Path, kind: str) -> Iterator[None]:
    """Turn what a key that cannot be used leads to into a CheckError."""
    make = "`openssl ecparam -genkey -name prime256v1 -noout -out key.pem` makes one"
    if kind == "public":
        make = "`openssl ec -in key.pem -pubout -out key.pub` writes that of a private key"
    try:
        yield
    except OSError as error:
        raise CheckError(f"{key} cannot be read ({error.strerror}). A {kind} key was expected; {make}.") from None
    except TypeError as error:  # cryptography says whether a password lacks or is too many
        raise CheckError(f"{key}: {error}. The password of a key is read from ${PASSWORD}.") from None
    except Exception as error:  # cryptography and the library have many; AttributeError is what a key of RSA leads to
        said = "no key of an elliptic curve" if isinstance(error, AttributeError) else str(error).splitlines()[0]
        raise CheckError(
            f"{key} cannot be used ({said}). A {kind} key of the curve P-256, P-384 or P-521 as PEM was expected;"
            f" {make}."
        ) from None
