"""Reads the bytes of a file or a URL that others have named: never more than was agreed, and never without an end.

A manifest may come from elsewhere. So what it names is read only if it is a regular file or answers over a public
network, unless `data.allow_outside` says otherwise.
"""

from __future__ import annotations

import errno
import hashlib
import io
import ipaddress
import os
import socket
import stat
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from headstart.base.files import is_local, located

if TYPE_CHECKING:
    from upath import UPath

# Schemes of the public network and of object stores, whose hosts are the user's own settings and not a manifest's.
OPEN_SCHEMES = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "memory")
_PART = 1 << 20
_MAX_BYTES = ", which validate.max_mb allows"
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link that leads nowhere",
}


class Limits(NamedTuple):
    """What may be read."""

    max_bytes: int  # of one file
    timeout_s: float  # until a URL has answered in full
    outside: bool  # whether URLs may lead to this machine and its own network


class NotReadError(Exception):
    """The bytes are not read; the message is the reason, in a few words."""


class Source(NamedTuple):
    """A file name, relative to `folder`, or a URL: it is opened and read as a path is, within the limits."""

    where: str
    folder: Path
    limits: Limits

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return the file, or all that a URL has given; NotReadError if a limit forbids it.

        OSError, or whatever the file system of a URL raises, if it cannot be read.
        """
        path = located(self.where, self.folder)
        return _regular(path) if is_local(path) else io.BytesIO(_of_url(self.where, self.folder, self.limits))


def read(where: str, folder: Path, limits: Limits) -> bytes:
    """Return the bytes of a file name, relative to `folder`, or of a URL; errors as of `Source.open`."""
    with Source(where, folder, limits).open() as file:
        return _bounded(file, limits.max_bytes, _MAX_BYTES)


def _of_url(where: str, folder: Path, limits: Limits) -> bytes:
    path = located(where, folder)
    remote = cast("UPath", path)
    if remote.protocol in ("http", "https"):
        is_of_user = not is_local(folder)  # a page in data.root itself
        return _over_http(str(remote), limits._replace(outside=limits.outside or (is_of_user and "://" not in where)))
    return _of_stream(remote, limits)


def kind_of(mode: int) -> str:
    """Return in words what a file is that is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; False too where the name is too long for one."""
    try:
        return path.exists()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; False too where the name is too long for one."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public network, and not to this machine or one around it."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return bool((inner or ip).is_global and not ip.is_multicast)


def of_file(path: Path, max_bytes: int, named: str = "") -> bytes:
    """Return the bytes of a regular file; NotReadError if it is none, or larger. `named`: the limit, for the message.

    OSError, or ValueError for a name that cannot be, if it cannot be read.
    """
    with _regular(path) as file:
        return _bounded(file, max_bytes, named)


def _bounded(file: BinaryIO, max_bytes: int, named: str) -> bytes:
    _check_size(file.seek(0, os.SEEK_END), max_bytes, named)  # what a file says of its size may be less than it gives
    file.seek(0)
    data = file.read(max_bytes + 1)
    _check_size(len(data), max_bytes, named)
    return data


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a regular file; errors as of `of_file`."""
    with _regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regular(path: Path) -> io.BufferedReader:
    """Open a regular file; NotReadError, without waiting, for a FIFO and the like."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise NotReadError(f"{kind_of(mode)}, no regular file")
    return os.fdopen(number, "rb")


def _of_stream(path: UPath, limits: Limits) -> bytes:
    """Read a URL of another kind; its library has the last word on how long one answer takes."""
    end, parts, n_bytes = time.monotonic() + limits.timeout_s, [], 0
    with path.open("rb") as file:
        while part := file.read(_PART):
            parts.append(part)
            n_bytes += len(part)
            _check_size(n_bytes, limits.max_bytes, _MAX_BYTES)
            if time.monotonic() > end:
                raise NotReadError(_too_late(limits.timeout_s))
    return b"".join(parts)


def _over_http(url: str, limits: Limits) -> bytes:
    from fsspec.asyn import sync

    found: bytes = sync(_http(limits).loop, _get, url, limits)
    return found


async def _get(url: str, limits: Limits) -> bytes:
    import aiohttp

    system = _http(limits)
    session = await system.set_session()
    parts, n_bytes = [], 0
    try:
        async with session.get(system.encode_url(url), **system.kwargs) as answer:
            if answer.status >= 400:
                raise NotReadError(f"its server answered {answer.status}")
            async for part in answer.content.iter_chunked(_PART):
                parts.append(part)
                n_bytes += len(part)
                _check_size(n_bytes, limits.max_bytes, _MAX_BYTES)
    except TimeoutError:
        raise NotReadError(_too_late(limits.timeout_s)) from None
    except aiohttp.ClientConnectorError as error:
        if error.os_error.errno == errno.EACCES:
            raise NotReadError(
                f"it leads to {error.os_error.filename}, an address of this machine or its own network; set"
                " data.allow_outside to true if it may"
            ) from None
        raise
    return b"".join(parts)


@lru_cache
def _http(limits: Limits) -> Any:
    """Return fsspec's file system with a limit of time; without `outside` it connects to public addresses alone."""
    import aiohttp
    import fsspec

    options = dict(fsspec.config.conf.get("http", {}).get("client_kwargs", {}))
    options["timeout"] = aiohttp.ClientTimeout(total=limits.timeout_s)
    return fsspec.filesystem(
        "http", client_kwargs=options, get_client=_open_client if limits.outside else _guarded_client
    )


async def _open_client(**options: Any) -> Any:
    import aiohttp

    return aiohttp.ClientSession(**options)


async def _guarded_client(**options: Any) -> Any:
    """Return a client that looks at the address of each connection itself: after names and redirects are resolved."""
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_public_socket), **options)


def _public_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, where = address
    if not is_public(where[0]):
        raise PermissionError(errno.EACCES, "not of the public network", where[0])
    return socket.socket(family, kind, protocol)


def _check_size(n_bytes: int, max_bytes: int, named: str) -> None:
    if n_bytes > max_bytes:
        raise NotReadError(f"more than {max_bytes / 1e6:g} MB{named}")


def _too_late(timeout_s: float) -> str:
    return f"not answered in full within {timeout_s:g} s, which validate.timeout_s allows"
