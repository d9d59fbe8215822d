"""A process that decodes images for its parent, within limits; `python -m headstart.images.worker`.

It reads jobs from its standard input and answers each on its standard output, and ends with its input. Whatever a file
does to it, the parent lives (headstart/images/limited.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

from headstart.images.decoding import decode
from headstart.images.formats import OutOfMemoryError, UnreadableError
from headstart.images.headers import examined

if sys.platform != "win32":  # where the parent limits seconds alone
    import resource

OUT_OF_MEMORY = 3  # exit status

_HEAD = struct.Struct("<QQQB?")
_LINE = struct.Struct("<I")
_BYTES_A_PIXEL = 32  # the most that a decoder takes with all its buffers: WebP with transparency takes 23
_SPARE_BYTES = 300_000_000  # for libraries, and for files of few pixels


class Job(NamedTuple):
    """What is asked for, before the bytes of the file."""

    n_bytes: int
    max_pixels: int
    max_seconds: int  # of processor time
    bits: int
    with_pixels: bool

    def packed(self) -> bytes:
        """Return the job as `read_job` reads it."""
        return _HEAD.pack(*self)


def read_exactly(stream: BinaryIO, n_bytes: int) -> bytearray:
    """Return the next bytes; EOFError if there are fewer."""
    data = bytearray(n_bytes)
    rest = memoryview(data)
    while rest:
        n_read = stream.readinto(rest)  # type: ignore[attr-defined]
        if not n_read:
            raise EOFError
        rest = rest[n_read:]
    return data


def read_line(stream: BinaryIO) -> bytes:
    """Return what is told about the image, as JSON; EOFError if the worker is dead."""
    (n_bytes,) = _LINE.unpack(read_exactly(stream, _LINE.size))
    return bytes(read_exactly(stream, n_bytes))


def main() -> None:
    """Answer jobs until the input ends."""
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := jobs.read(_HEAD.size):
        job, pixels = Job(*_HEAD.unpack(head)), None
        _limit(job, 0)
        try:
            data = jobs.read(job.n_bytes)
            _limit(job, examined(data).n_pixels)
            image = decode(data, job.bits, job.max_pixels, in_srgb=job.with_pixels)
            height_px, width_px = image.rgb.shape[:2]
            told: dict[str, object] = {"format": image.format, "width_px": width_px, "height_px": height_px}
            told |= {"bits": image.bits, "damage": image.damage}
            pixels = image.rgb if job.with_pixels else None
        except (OutOfMemoryError, MemoryError):
            os._exit(OUT_OF_MEMORY)  # there may be none left for more; and what was left behind is unknown
        except UnreadableError as error:
            told = {"error": str(error)}
        line = json.dumps(told).encode()
        answers.write(_LINE.pack(len(line)) + line)
        if pixels is not None:
            answers.write(pixels.data)
        answers.flush()


def _limit(job: Job, n_pixels: int) -> None:
    """Limit this process's memory and processor time to what one more image may take."""
    if sys.platform == "win32":
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + job.max_seconds
    memory = _address_space() + _SPARE_BYTES + 3 * job.n_bytes + _BYTES_A_PIXEL * min(n_pixels, job.max_pixels)
    for kind, soft in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):  # a system may not know a limit, or hold a lower one
            resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Return how many bytes of addresses this process has."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 1_000_000_000


if __name__ == "__main__":
    main()
