"""The ledger of a model: what it has met, and the bets that nothing has changed. One small file of JSON.

Images are told apart by a digest, of which the last 50,000 are kept, or all of the last look if these are more. So one
that is shown again is not counted again: repeated images are not exchangeable with others. Ties between scores are
broken, and images that have come together are ordered, by a seed that is drawn when the ledger begins.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.disk import DiskError
from headstart.base.errors import CheckError
from headstart.base.files import write_text
from headstart.monitoring import reference, scores
from headstart.monitoring.martingale import N_BETS, Martingale
from headstart.monitoring.reference import Reference

_FORMAT = 1
_DIGEST = 8  # bytes
_MAX_SEEN = 50_000
_MAX_LOOKS = 1000


@dataclass(frozen=True)
class Alarm:
    """The first image at which the evidence against `no change` was large enough."""

    score: str
    n_images: int  # its number among those that were counted
    image: str
    time: str


@dataclass(frozen=True)
class Look:
    """A batch of images in numbers."""

    time: str  # ISO 8601, UTC
    n_images: int
    evidence: float  # log10 of the highest capital so far, over the limit of an alarm; 0 and more: alarm
    confidence: float
    accuracy: float  # estimated
    abstaining: float
    novel: float
    p_value: float | None  # of the two-sample test


@dataclass
class Ledger:
    """The bets of a model, and what was met so far."""

    model_sha256: str
    false_alarm: float  # chance of ever raising an alarm without a change, at most
    seed: int
    bets: dict[str, Martingale]
    seen: dict[bytes, None] = field(default_factory=dict)  # in the order in which they came
    looks: list[Look] = field(default_factory=list)
    alarm: Alarm | None = None
    notified: bool = False  # people were told of the alarm
    retrained: bool = False  # the pipeline ran after it

    @classmethod
    def begun(cls, known: Reference, false_alarm: float, seed: int) -> Ledger:
        """Return a ledger that has met nothing but the held-out images. `seed`, 0 or more: of ties and of order."""
        bets = {name: Martingale(known.counts[name].copy()) for name in scores.SCORES}
        return cls(known.model_sha256, false_alarm, seed, bets)

    @property
    def n_images(self) -> int:
        """How many images were counted."""
        return next(iter(self.bets.values())).n_images

    @property
    def limit(self) -> float:
        """The capital at which a bet raises the alarm: one of K bets ever reaches it with a chance of `false_alarm`."""
        return len(self.bets) / self.false_alarm

    @property
    def evidence(self) -> float:
        """log10 of the highest capital of any bet, over the limit."""
        highest = max(each.log_highest for each in self.bets.values())
        return highest / math.log(10) - math.log10(self.limit)

    def order(self, digests: Sequence[bytes]) -> list[int]:
        """Return the rows of images in a random order, always the same in this ledger.

        For images that have come together: a folder is listed by its classes, which is no order of arrival.
        """
        seed = self.seed.to_bytes(16, "little")
        return sorted(range(len(digests)), key=lambda row: hashlib.sha256(seed + digests[row]).digest())

    def add(self, outputs: Mapping[str, np.ndarray], digests: Sequence[bytes], names: Sequence[str], time: str) -> int:
        """Count the images whose digests are new, in this order; return how many. Outputs have a row an image."""
        levels = scores.levels(outputs)
        n_new = 0
        for row, (digest, name) in enumerate(zip(digests, names, strict=True)):
            is_known = digest[:_DIGEST] in self.seen
            self.seen.pop(digest[:_DIGEST], None)
            self.seen[digest[:_DIGEST]] = None  # at the end, so that what is shown at every look is never forgotten
            if is_known:
                continue
            n_new += 1
            for number, (score, made) in enumerate(self.bets.items()):
                tie = np.random.default_rng([self.seed, number, made.n_images]).random()
                made.add(int(levels[score][row]), float(tie))
                if self.alarm is None and made.log_capital >= math.log(self.limit):
                    self.alarm = Alarm(score, made.n_images, name, time)
        n_kept = max(_MAX_SEEN, len({digest[:_DIGEST] for digest in digests}))
        while len(self.seen) > n_kept:
            del self.seen[next(iter(self.seen))]
        return n_new

    def note(self, look: Look) -> None:
        """Note a look; the oldest of more than 1,000 are dropped."""
        self.looks = [*self.looks, look][-_MAX_LOOKS:]

    def write(self, path: Path) -> None:
        """Write the file, whole at every moment; CheckError where that is not possible."""
        value = {
            "format": _FORMAT,
            "model_sha256": self.model_sha256,
            "false_alarm": self.false_alarm,
            "seed": self.seed,
            "bets": {name: _told(made) for name, made in self.bets.items()},
            "seen": base64.b64encode(b"".join(self.seen)).decode("ascii"),
            "looks": [asdict(look) for look in self.looks],
            "alarm": self.alarm and asdict(self.alarm),
            "notified": self.notified,
            "retrained": self.retrained,
        }
        try:
            write_text(path, json.dumps(value, allow_nan=False) + "\n")
        except DiskError:  # which says all
            raise
        except OSError as error:
            raise CheckError(
                f"{path} cannot be written ({error.strerror}). A place for the ledger was expected. Make room"
                " there, or name another one with --ledger."
            ) from None


def read(path: Path) -> Ledger | None:
    """Return the ledger at `path`; None if there is none, CheckError if it is something else or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckError(
            f"{path} cannot be read ({error.strerror}). A ledger was expected. Name another one."
        ) from None
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    try:
        if value["format"] != _FORMAT:
            raise ValueError
        seen = base64.b64decode(value["seen"], validate=True)
        found = Ledger(
            model_sha256=str(value["model_sha256"]),
            false_alarm=float(value["false_alarm"]),
            seed=int(value["seed"]),
            bets={name: _bet(value["bets"][name]) for name in scores.SCORES},
            seen={seen[start : start + _DIGEST]: None for start in range(0, len(seen), _DIGEST)},
            looks=[Look(**look) for look in value["looks"]],
            alarm=Alarm(**value["alarm"]) if value["alarm"] else None,
            notified=value.get("notified") is True,
            retrained=value.get("retrained") is True,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise _damaged(path) from None
    if (
        not 0 < found.false_alarm < 1
        or not 0 <= found.seed < 2**64
        or len({made.n_images for made in found.bets.values()}) > 1
    ):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> CheckError:
    return CheckError(
        f"{path} is not a ledger, or is damaged. What `headstart monitor` writes was expected. Name another one, or"
        " remove it to begin anew."
    )


def _told(made: Martingale) -> dict[str, Any]:
    return {
        **reference.sparse(made.counts),
        "weights": made.weights.tolist(),
        "bins": made.bins.tolist(),
        "n_images": made.n_images,
        "log_capital": made.log_capital,
        "log_highest": made.log_highest,
    }


def _bet(value: Mapping[str, Any]) -> Martingale:
    counts = reference.dense(value)
    weights, bins = np.array(value["weights"], np.float64), np.array(value["bins"], np.float64)
    capital, highest = float(value["log_capital"]), float(value["log_highest"])
    is_sound = len(weights) == N_BETS and len(bins) and bins.min() > 0 and abs(weights.sum() - 1) < 1e-6
    if not is_sound or not math.isfinite(capital + highest) or counts.min() < 0:
        raise ValueError
    return Martingale(counts, weights, bins, int(value["n_images"]), capital, highest)
