"""What the library of the Hugging Face hub raises -> an error that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from headstart.base.errors import ParamError, UnreachableError, on_one_line

HUB = "hf-hub:"  # backbone.name begins with it
_BAD_TOKEN = "Invalid credentials"
_TRY_LATER = (408, 429)  # of the HTTP statuses below 500
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_on_hub(name: str) -> bool:
    """Return whether a backbone.name is that of a network on the Hugging Face hub."""
    return name.startswith(HUB)


class Wanted(NamedTuple):
    """What backbone.name asks for."""

    repository: str  # OWNER/NAME
    revision: str  # a branch, a tag or a commit

    @property
    def is_pinned(self) -> bool:
        """Whether it is one commit."""
        return bool(_COMMIT.fullmatch(self.revision))


def endpoint() -> str:
    """Return the address of the hub: of `HF_ENDPOINT`, or Hugging Face's own."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")


@contextmanager
def told(asked: Wanted, file: str | None = None) -> Iterator[None]:
    """Turn what the hub's library raises into an error that says what to do.

    ParamError if a later try would end the same, UnreachableError if it may not.
    """
    from huggingface_hub import errors

    what, page = f"{HUB}{asked.repository}", f"{endpoint()}/{asked.repository}"
    token = "log in by `hf auth login`, or set HF_TOKEN to a token that may read it"
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise UnreachableError(
            f"{what} is not in the cache of this machine, and HF_HUB_OFFLINE forbids to ask the hub. Unset it, or run"
            f" `hf download {asked.repository} --revision {asked.revision}` where there is a network, and copy its"
            " cache."
        ) from error
    except errors.GatedRepoError as error:
        raise ParamError(
            f"{what} is gated: its owner asks everyone to accept terms first. Accept them on {page}, then {token}, and"
            " run again."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ParamError(
            f"{what} has no revision '{asked.revision}'. A branch, a tag or a commit of {page} was expected. Set"
            " backbone.name in params.yaml."
        ) from error
    except errors.HFValidationError as error:
        raise ParamError(
            f"backbone.name is '{what}', which no repository can have as its name ({on_one_line(str(error))}). Set"
            " backbone.name in params.yaml."
        ) from error
    except _network_errors() as error:
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        response: Any = getattr(cause, "response", None)
        status = int(getattr(response, "status_code", 0))
        said = on_one_line(" ".join(str(cause).split())) or type(cause).__name__
        where = f"{file} of {what}" if file else what
        if status == 403 or (status == 401 and _BAD_TOKEN in response.headers.get("X-Error-Message", "")):
            raise ParamError(
                f"{where} cannot be read: the hub does not accept your token (HTTP {status}). Run `hf auth login`"
                " again, or set HF_TOKEN to another."
            ) from error
        if status == 401 or isinstance(error, errors.RepositoryNotFoundError):  # the hub does not say which
            raise ParamError(
                f"{what} is not on {endpoint()}, or it is private. Check the spelling of backbone.name in params.yaml"
                f" (OWNER/NAME, as in the address of its page); if it is private, {token}."
            ) from error
        if 400 <= status < 500 and status not in _TRY_LATER:
            raise ParamError(
                f"{where} cannot be fetched ({said}). Check backbone.name in params.yaml, and {page}."
            ) from error
        raise UnreachableError(
            f"{where} cannot be fetched from {endpoint()} ({said}). Try again. Without a network, fetch it by"
            f" `hf download {asked.repository} --revision {asked.revision}` elsewhere and copy the cache."
        ) from error


def no_hub(error: Exception) -> ParamError:
    """Return what to say where the answers are none of a hub's."""
    return ParamError(
        f"{endpoint()} does not answer as a hub does ({type(error).__name__}). The address of a hub was expected. Unset"
        " HF_ENDPOINT, or mend it."
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's library raises, and the HTTP library below it, of which there have been two."""
    from huggingface_hub.errors import HfHubHTTPError

    of_http = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)]
    return OSError, *of_http
