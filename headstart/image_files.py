"""The files below a folder, and which of them nobody takes for an image. `validate` and `headstart predict` share it.

Links are followed, and no folder is read twice, so that loops end and a folder that is linked several times counts
once. It imports neither Polars nor anything else that a deployment lacks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from headstart.base.errors import printable
from headstart.base.files import is_local
from headstart.base.reading import OPEN_SCHEMES, kind_of

# What nobody takes for a broken image. Files and folders of systems, in lower case:
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_DOCUMENTS = {
    *(".md", ".rst", ".txt", ".pdf", ".html", ".htm", ".doc", ".docx", ".xls", ".xlsx", ".log"),
    *(".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".dvc"),
    *(".py", ".ipynb", ".sh", ".db", ".sqlite", ".sha256", ".md5", ".zip", ".tar", ".gz", ".url", ".lnk"),
}
_DOCUMENT_NAMES = {
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "changelog",
    "makefile",
    "sha256sums",
}
# Where DVC and git-annex keep the bytes of files that are links in the working tree.
_STORES = (".dvc/cache", ".git/annex/objects")


ABSENT, SPECIAL, UNKNOWN, OUTSIDE = "absent", "special", "unknown scheme", "outside"  # what is wrong with a path


class Odd(NamedTuple):
    """A name below the folder that is not read."""

    path: str  # bytes that are no UTF-8 are surrogates, as in os.fsdecode
    reason: str
    is_folder: bool = False


class Below(NamedTuple):
    """What lies below a folder. Paths are relative to it, separated by /, and sorted."""

    files: Sequence[str]  # regular ones, and links to such
    special: Sequence[Odd]  # FIFOs, sockets, devices, links that lead nowhere, names that are no UTF-8, closed folders
    outside: Sequence[Odd]  # links that lead out of the folder, where these are not followed
    again: Sequence[Odd]  # linked folders that are read at another place
    linked: Sequence[str]  # linked folders that were followed


def below(root: Path, follows_out: bool) -> Below:
    """Return what lies below `root`. `follows_out`: read links that lead out of it too."""
    return _Walk(root, follows_out).result()


def no_image(path: str) -> str | None:
    """Return why nobody takes this file for an image: what systems and tools leave behind, and documents."""
    parts = path.split("/")
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    if hidden := next((part for part in parts if _is_hidden(part)), None):
        return f"hidden: '{hidden}'"
    is_document = suffix in _DOCUMENTS or (not suffix and parts[-1].lower() in _DOCUMENT_NAMES)
    return f"no image: '{suffix or parts[-1]}'" if is_document else None


class Bounds:
    """Which real paths count as inside a folder."""

    def __init__(self, root: Path) -> None:
        real = root.resolve()
        self._roots = {str(real), *(str(above / store) for above in (real, *real.parents) for store in _STORES)}
        self._known: dict[str, bool] = {}

    def holds(self, real: str) -> bool:
        """Return whether a path without links is inside, or in a store of DVC or git-annex around it."""
        folder = os.path.dirname(real)  # noqa: PTH120 of millions of paths
        if folder not in self._known:
            self._known[folder] = any(self._is_in(folder, root) for root in self._roots)
        return self._known[folder] or real in self._roots

    @staticmethod
    def _is_in(path: str, root: str) -> bool:
        return path == root or path.startswith(root.rstrip("/") + "/")


class Places:
    """Says what is wrong with a path that a manifest names."""

    def __init__(self, folder: Path, follows_out: bool) -> None:
        self._is_local = is_local(folder)
        self._folder = str(folder)
        self._follows_out = follows_out
        self._bounds = Bounds(folder) if self._is_local else None
        self._real: dict[str, str] = {}  # folder as it is named -> the same without links
        self._schemes: frozenset[str] | None = None

    def wrong(self, path: str) -> str | None:
        """Return ABSENT, SPECIAL, UNKNOWN or OUTSIDE; None for a file, or a URL, that may be read."""
        scheme, colon, rest = path.partition("://")
        if colon and scheme not in ("file", "local"):
            if scheme in OPEN_SCHEMES:
                return None
            return self._wrong_scheme(scheme)
        if not colon and not self._is_local:
            return None  # on the server of the manifest itself
        return self._wrong_file(rest if colon else f"{self._folder}/{path}" if not path.startswith("/") else path)

    def _wrong_scheme(self, scheme: str) -> str | None:
        if self._schemes is None:
            import fsspec

            self._schemes = frozenset(fsspec.available_protocols())
        if not self._schemes.issuperset(scheme.split("::")):
            return UNKNOWN
        return None if self._follows_out else OUTSIDE

    def _wrong_file(self, path: str) -> str | None:
        folder = os.path.dirname(path)  # noqa: PTH120 of millions of paths
        try:
            if folder not in self._real:
                self._real[folder] = os.path.realpath(folder)
            real = f"{self._real[folder]}/{os.path.basename(path)}"  # noqa: PTH119
            seen = os.lstat(path)
            if stat.S_ISLNK(seen.st_mode):
                real, seen = os.path.realpath(path), os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):  # ValueError: a NUL in it
            return ABSENT
        if not self._follows_out and not (self._bounds and self._bounds.holds(real)):
            return OUTSIDE
        return None if stat.S_ISREG(seen.st_mode) else SPECIAL


class _Walk:
    """First the folders themselves, then the linked ones, in order of their names: so the real place of a file wins."""

    def __init__(self, root: Path, follows_out: bool) -> None:
        self._root, self._follows_out, self._bounds = root, follows_out, Bounds(root)
        self._files: list[str] = []
        self._special: list[Odd] = []
        self._outside: list[Odd] = []
        self._again: list[Odd] = []
        self._linked: list[str] = []
        self._seen: dict[tuple[int, int], str] = {}  # device, inode of a folder -> where it is read
        links = list(self._read(""))
        while links:
            links = [further for link in sorted(links) for further in self._read(link, is_link=True)]

    def result(self) -> Below:
        special, outside, again = (sorted(each) for each in (self._special, self._outside, self._again))
        return Below(sorted(self._files), special, outside, again, sorted(self._linked))

    def _read(self, path: str, is_link: bool = False) -> Iterator[str]:
        """Note what a folder and those in it hold; yield the links to folders."""
        stack = [path]
        while stack:
            folder = stack.pop()
            try:
                seen = (self._root / folder).stat()
                entries = sorted(os.scandir(self._root / folder), key=lambda each: each.name)
            except OSError as error:
                self._special.append(Odd(folder or ".", f"a folder that cannot be read: {error.strerror}"))
                continue
            place = self._seen.setdefault((seen.st_dev, seen.st_ino), folder or ".")
            if place != (folder or "."):
                self._again.append(Odd(folder, f"a link to a folder that is read as '{place}'"))
                continue
            if is_link and folder == path:
                self._linked.append(folder)
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not _is_utf8(entry.name):
                    self._special.append(Odd(name, "a name that is not UTF-8"))
                elif entry.is_symlink():
                    if self._is_folder_to_read(name, entry):
                        yield name
                elif entry.is_dir(follow_symlinks=False):
                    stack.append(name)
                elif entry.is_file(follow_symlinks=False):
                    self._files.append(name)
                else:
                    self._special.append(Odd(name, kind_of(entry.stat(follow_symlinks=False).st_mode)))

    def _is_folder_to_read(self, name: str, link: os.DirEntry[str]) -> bool:
        """Note what a link leads to; return whether that is a folder to be read."""
        try:
            mode = link.stat().st_mode
        except OSError:
            self._special.append(Odd(name, "a link that leads nowhere"))
            return False
        is_folder, real = stat.S_ISDIR(mode), os.path.realpath(link.path)
        if not is_folder and not stat.S_ISREG(mode):
            self._special.append(Odd(name, f"a link to {kind_of(mode)}"))
        elif not self._follows_out and not self._bounds.holds(real):
            self._outside.append(
                Odd(name, f"a link to {'the folder' if is_folder else 'the file'} {printable(real)}", is_folder)
            )
        elif is_folder:
            return True
        else:
            self._files.append(name)
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
