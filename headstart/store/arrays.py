"""The content-addressed array store: one row per image, keyed by the SHA-256 of the image's bytes.

A store is a folder of shards and a manifest. A shard is one safetensors file with the rows whose keys share their
leading bits, sorted by key. The bytes of all shards are a pure function of the set of keys and the fingerprint of what
computed the values, never of history: a rerun after `kill -9` ends in the same bytes, and unaffected shards keep
theirs. Each shard carries its own fingerprint and digest, so its rows can be trusted without the manifest. The manifest
is written last: its presence means that the build completed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from headstart.base.errors import CheckError, count_and_name
from headstart.base.files import Place, reaching, sha256_of
from headstart.base.records import Record
from headstart.store.shards import Contract as Contract
from headstart.store.shards import DamagedError, OtherContractError, Shard, claimed_keys
from headstart.store.shards import fingerprint as fingerprint
from headstart.store.shards import write as write_shard
from headstart.store.workers import Workers, each, stoppable

ROWS_PER_SHARD = 512  # largest average, lower for large rows; it bounds the memory used and the work that a kill loses
BYTES_PER_SHARD = 512 * 256 * 256 * 3  # 100 MB: 512 rows of pixels of 256 px
MANIFEST = "manifest.json"
_OPEN_SHARDS = 4
_SHARDS_PER_JOB = 8
_SHARD_NAME = re.compile(r"shard-([0-9]{6})-of-([0-9]{6})\.safetensors")

Advance = Callable[[int], None]
Compute = Callable[[Mapping[str, str], Advance], np.ndarray]  # takes image_id -> path of its bytes, and the progress


class Manifest(Record):
    """The fields of a finished store's manifest.json."""

    fingerprint: str
    dtype: str
    row_shape: tuple[int, ...]
    n_rows: int
    shards: dict[str, str]  # file name -> digest


def rows_per_shard(contract: Contract) -> int:
    """Return the largest average number of rows per shard: `ROWS_PER_SHARD`, or as many as `BYTES_PER_SHARD` hold."""
    return min(ROWS_PER_SHARD, max(1, BYTES_PER_SHARD // max(contract.row_bytes, 1)))


def n_shards(n_rows: int, contract: Contract) -> int:
    """Return the number of shards: the smallest power of two with at most `rows_per_shard` on average."""
    return 1 << max(0, (max(n_rows, 1) - 1) // rows_per_shard(contract)).bit_length()


def build(
    place: Place,
    images: Mapping[str, str],
    contract: Contract,
    compute: Compute,
    pool: Workers,
    advance: Advance = lambda n: None,
    report: Callable[[str], None] = lambda message: None,
) -> int:
    """Make the store hold exactly `images` (image_id -> path of its bytes); return the number of rows computed.

    `pool` builds the shards. `compute(images, advance)` is called for the missing rows of a job and returns
    [len(images), *row_shape] in their order; it must be picklable if workers are other processes. Rows of a damaged
    shard are computed again, and `report` names the shard. `advance` counts every row, including those already stored.
    """
    folder, shards = place
    wanted = sorted(images)
    total = n_shards(len(wanted), contract)
    earlier = _earlier(shards)
    tell, stop = stoppable(advance, pool)
    plans = (
        _Plan(_name(index, total), {one: images[one] for one in ids}, _overlapping(earlier, index, total))
        for index, ids in enumerate(_partition(wanted, total))
    )
    jobs = ((shards, job, contract, compute, tell) for job in _jobs(plans, shards, contract))
    digests: dict[str, str] = {}
    n_computed = 0
    told: set[str] = set()
    with closing(each(pool, _bring_up, jobs, stop)) as finished:
        for job in finished:
            for made in job:
                digests[made.name] = made.digest
                n_computed += made.n_computed
                if not pool.in_process:
                    advance(made.n_rows)
                for message in set(made.damaged) - told:  # two jobs may find the same damage
                    told.add(message)
                    report(message)
    Manifest(
        fingerprint=contract.fingerprint,
        dtype=contract.dtype,
        row_shape=contract.row_shape,
        n_rows=len(wanted),
        shards=dict(sorted(digests.items())),
    ).write(folder / MANIFEST)
    for each_place in {folder, shards}:
        for path in _files(each_place):
            if not (path.name in digests and each_place == shards) and path.name != MANIFEST:
                _remove(path)
    return n_computed


def _earlier(shards: Path) -> dict[int, set[str]]:
    """Return the shards of earlier builds, finished or not, by number of shards; delete partly written files."""
    earlier: dict[int, set[str]] = {}
    for path in _files(shards):
        if path.name.endswith(".partial"):
            _remove(path)
        elif match := _SHARD_NAME.fullmatch(path.name):
            earlier.setdefault(int(match[2]), set()).add(path.name)
    return earlier


def _files(folder: Path) -> list[Path]:
    with reaching(folder, "listed"):
        try:
            folder.stat()  # is_dir takes what a server fails with for a folder that is not there
        except FileNotFoundError:
            return []
        return list(folder.iterdir())


def _remove(path: Path) -> None:
    with reaching(path, "removed"):
        path.unlink()


class _Plan(NamedTuple):
    """The rows of a new shard, and the earlier shards that may hold some of them."""

    name: str
    images: dict[str, str]
    earlier: list[str]


class _Made(NamedTuple):
    """The result of building one shard."""

    name: str
    digest: str
    n_rows: int
    n_computed: int
    damaged: list[str]


def _jobs(plans: Iterable[_Plan], folder: Path, contract: Contract) -> Iterator[list[_Plan]]:
    """Yield jobs of one shard if many rows are missing, of several if few are, so that few rows still fill batches."""
    job: list[_Plan] = []
    n_missing = 0
    for plan in plans:
        present = set().union(*(claimed_keys(folder / name, contract) for name in plan.earlier))
        job.append(plan)
        n_missing += sum(image_id not in present for image_id in plan.images)
        if n_missing >= rows_per_shard(contract) / 4 or len(job) == _SHARDS_PER_JOB:
            yield job
            job, n_missing = [], 0
    if job:
        yield job


def _bring_up(folder: Path, job: list[_Plan], contract: Contract, compute: Compute, advance: Advance) -> list[_Made]:
    """Build the shards of a job from stored and newly computed rows: a pure function that runs on any machine."""
    made: list[_Made] = []
    to_write: list[tuple[_Plan, list[Shard], list[str]]] = []
    missing: dict[str, str] = {}
    for plan in job:
        sound, damaged = _sound(folder, plan.earlier, contract)
        same = next(
            (shard for shard in sound if shard.name == plan.name and shard.image_ids == list(plan.images)), None
        )
        if same:
            advance(len(plan.images))
            made.append(_Made(plan.name, same.digest, len(plan.images), 0, damaged))
            continue
        present = set().union(*(shard.rows for shard in sound))
        missing |= {image_id: where for image_id, where in plan.images.items() if image_id not in present}
        to_write.append((plan, sound, damaged))
    computed = compute(missing, advance) if missing else np.empty((0, *contract.row_shape))
    row_of = {image_id: row for row, image_id in enumerate(missing)}
    for plan, sound, damaged in to_write:
        values = np.empty((len(plan.images), *contract.row_shape), contract.dtype)
        n_computed = 0
        for row, image_id in enumerate(plan.images):
            if image_id in row_of:
                values[row] = computed[row_of[image_id]]
                n_computed += 1
            else:
                shard = next(shard for shard in sound if image_id in shard.rows)
                values[row] = shard.values[shard.rows[image_id]]
        advance(len(plan.images) - n_computed)
        digest = write_shard(folder / plan.name, list(plan.images), values, contract)
        made.append(_Made(plan.name, digest, len(plan.images), n_computed, damaged))
    return made


def _sound(folder: Path, names: list[str], contract: Contract) -> tuple[list[Shard], list[str]]:
    """Return the verified shards of this contract, and a message for each damaged one."""
    sound, damaged = [], []
    for name in names:
        try:
            sound.append(Shard(folder / name, contract))
        except (OtherContractError, FileNotFoundError):
            continue
        except DamagedError as damage:
            damaged.append(f"{folder.name}/{name} is damaged ({damage}) and is computed again")
    return sound, damaged


class Store:
    """A finished store. A shard is verified once, on first access, and read through a memory map."""

    def __init__(self, place: Place, stage: str) -> None:
        """Open the store that `stage` builds; CheckError if it is missing or its build did not complete."""
        self._folder, self._stage = place.shards, stage
        try:
            manifest = Manifest.read(place.folder / MANIFEST, stage)
        except CheckError as error:
            raise CheckError(f"{place.folder} holds no finished store: {error}") from None
        self.contract = Contract(manifest.fingerprint, manifest.row_shape, manifest.dtype)
        self.digest = sha256_of(place.folder / MANIFEST)
        self._digests = manifest.shards
        self._verified: set[int] = set()
        self._open: OrderedDict[int, Shard] = OrderedDict()  # the most recently used, so that memory does not grow
        self._lock = Lock()
        self._opening = [Lock() for _ in range(_OPEN_SHARDS)]

    def read(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return [len(image_ids), *row_shape] in the order given; CheckError if any is missing."""
        return self.take(self.places(image_ids))

    def places(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the shard and the row of each image, int64 [N, 2]; CheckError if any is missing."""
        found = np.empty((len(image_ids), 2), np.int64)
        by_shard: dict[int, list[int]] = {}
        for number, image_id in enumerate(image_ids):
            by_shard.setdefault(_shard_of(image_id, len(self._digests)), []).append(number)
        missing = []
        for index, numbers in sorted(by_shard.items()):
            rows = self._shard(index).rows
            for number in numbers:
                row = rows.get(image_ids[number], -1)
                found[number] = index, row
                if row < 0:
                    missing.append(f"{image_ids[number][:12]}..")
        if missing:
            raise CheckError(
                f"{self._folder.name} lacks {len(missing)} of {len(image_ids)} images ({count_and_name(missing)})."
                f" Run `dvc repro {self._stage}`."
            )
        return found

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at `places`, [N, *row_shape]."""
        values = np.empty((len(places), *self.contract.row_shape), self.contract.dtype)
        for index in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == index)
            values[here] = self._shard(int(index)).values[places[here, 1]]
        return values

    def _shard(self, index: int) -> Shard:
        with self._opening[index % len(self._opening)]:  # threads that need the same shard open it once
            with self._lock:
                if index in self._open:
                    self._open.move_to_end(index)
                    return self._open[index]
            shard = self._opened(index)
            with self._lock:
                self._verified.add(index)
                self._open[index] = shard
                while len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            return shard

    def _opened(self, index: int) -> Shard:
        name = _name(index, len(self._digests))
        try:
            shard = Shard(self._folder / name, self.contract, verify=index not in self._verified)
            if shard.digest != self._digests[name]:
                raise DamagedError("it is not the shard that the manifest names")
        except (DamagedError, OtherContractError, OSError, KeyError) as error:
            said = str(error) or "its fingerprint is not the manifest's"
            raise CheckError(
                f"{self._folder / name} is damaged: {said}. Run `dvc repro --force {self._stage}`."
            ) from None
        return shard


class Rows:
    """The rows of some images of a store, read on access. `headstart.heads` uses it like an array."""

    def __init__(self, store: Store, image_ids: Sequence[str], row_shape: tuple[int, ...]) -> None:
        self._store, self._places = store, store.places(image_ids)
        self.shape = (len(image_ids), *row_shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers, [len(rows), *row_shape]."""
        return self._store.take(self._places[rows]).reshape(len(rows), *self.shape[1:])


def _overlapping(earlier: dict[int, set[str]], index: int, total: int) -> list[str]:
    """Return the names of earlier shards, of any total, that may hold rows of shard `index` of `total`."""
    names = []
    for other_total, known in sorted(earlier.items()):
        first, last = index * other_total // total, ((index + 1) * other_total - 1) // total
        names += [name for other in range(first, last + 1) if (name := _name(other, other_total)) in known]
    return names


def _name(index: int, total: int) -> str:
    return f"shard-{index:06d}-of-{total:06d}.safetensors"


def _shard_of(image_id: str, total: int) -> int:
    return int(image_id[:8], 16) * total >> 32


def _partition(sorted_ids: list[str], total: int) -> Iterator[list[str]]:
    start = 0
    for index in range(total):
        end = start
        while end < len(sorted_ids) and _shard_of(sorted_ids[end], total) == index:
            end += 1
        yield sorted_ids[start:end]
        start = end
