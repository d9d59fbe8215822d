"""Faults of processes, disks and clocks at chosen moments, and what has to hold after each.

A trial forces one stage of a finished project by DVC, or all of them by the flow, and disturbs it. Then a plain run has
to end in the bytes that were there before. `tests/faults` has a sample, `make torture` runs as many as fit into its
time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import psutil

from headstart.commands import locks
from tests.support.cluster import Cluster
from tests.support.projects import Project

STAGES = ("sample", "validate", "split", "rank", "backbone", "transform", "embed", "train_head", "audit", "finetune")
STAGES = (*STAGES, "adapt", "find_accepted", "evaluate", "quantize", "report", "export", "publish")
ALL = "all"  # of the flow, which forces what a stage needs, too
ON_CLUSTER = ("transform", "embed")  # the stages that Dask's workers take part in
_RARE = {"backbone": 0.2, "finetune": 0.2}  # they import PyTorch, which takes most of their time
KILLS = ("kill all", "kill at a write", "die at a write", "kill dvc", "kill the stage")
SIGNALS = ("terminate all", "interrupt all", "stop and go")
DISKS = ("full disk", "read-only disk", "reading fails")
OTHERS = ("clock jumps", "little memory")
KINDS = (*KILLS, *SIGNALS, *DISKS, *OTHERS)
KILL_A_WORKER = "kill a worker"  # of Dask
_MUST_SUCCEED = ("stop and go", "clock jumps", KILL_A_WORKER)
_OF_DVC = re.compile(r"/\.[\w-]{22}\.tmp$")  # where it could not rename what it had written
_ENDS_S, _MOST_S = 20.0, 600.0


@cache
def shim() -> Path | None:
    """Return the compiled fault.c; None where there is no C compiler, or another system than Linux."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    made = Path(gettempdir()) / f"headstart-fault-{os.getuid()}-{os.getpid()}.so"
    source = Path(__file__).with_name("fault.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    kind: str
    stage: str
    moment: float  # seconds after the start, or the number of a call
    status: int  # of the disturbed run
    mended: bool  # a bare `dvc repro` would have failed, and `headstart run` mended what had been left
    problem: str  # "" if the project was as before after one plain run
    seconds: float

    def line(self) -> str:
        """Return the outcome as a line of JSON."""
        return json.dumps(vars(self))


@dataclass
class Torture:
    """A finished project that is disturbed again and again."""

    project: Project
    random: random.Random
    under: str = "dvc"  # what runs the stage that is disturbed: dvc or flow
    cluster: Cluster | None = None  # whose workers the project names; the caches are emptied before, so that they work
    before: dict[str, str] = field(default_factory=dict)
    usual: dict[str, tuple[float, int, int]] = field(default_factory=dict)  # seconds, writes and reads of a stage

    def __post_init__(self) -> None:
        self.before = self._there()

    def trial(self, kind: str = "", stage: str = "") -> Outcome:
        """Disturb a stage and mend the project; by chance, unless `kind` and `stage` are given."""
        kind = kind or self.random.choice(KINDS)
        if not stage:
            stages = ON_CLUSTER if self.cluster is not None else STAGES
            stages = (ALL,) if self.under == "flow" else stages
            stage = self.random.choices(stages, [_RARE.get(each, 1.0) for each in stages])[0]
        began = time.monotonic()
        moment, status, said = self._disturb(kind, stage)
        problem = self._complaint(kind, status, said)
        is_damaged = not (locks._is_sound_rwlock(self._rwlock) and locks._is_sound_lock(self.project.root / "dvc.lock"))
        if is_damaged:
            done = self.project.run("python", "-m", "headstart", "run")
        else:
            again = ["--no-run-cache"] if self.random.random() < 0.5 else []
            done = self.project.run("dvc", "repro", *again)
        if done.returncode:
            problem = problem or f"a plain run failed: {done.stdout[-1500:]}"
        elif (after := self._there()) != self.before:
            names = sorted(name for name in {*after, *self.before} if after.get(name) != self.before.get(name))
            problem = problem or f"other bytes: {names}"
        return Outcome(kind, stage, moment, status, is_damaged, problem, round(time.monotonic() - began, 1))

    def _there(self) -> dict[str, str]:
        """Return the digests of all that was made, without what we or DVC have left half-written beside it."""
        found = self.project.artefacts()
        return {name: each for name, each in found.items() if ".partial" not in name and not _OF_DVC.search(name)}

    @property
    def _rwlock(self) -> Path:
        return self.project.root / ".dvc" / "tmp" / "rwlock"

    def _usual(self, stage: str) -> tuple[float, int, int]:
        """Return how long an undisturbed stage takes, and how often it writes and reads below the project."""
        if stage not in self.usual:
            began = time.monotonic()
            counts = []
            for of, below in (("write", ""), ("read", "artifacts")) if shim() else ():
                self._empty_the_cache()
                began = time.monotonic()
                with (
                    self._counter() as counter,
                    self._started(stage, self._faults(counter, of, 0, "0", below)) as process,
                ):
                    assert process.wait(_MOST_S) == 0, self._log.read_text()
                    counts.append(int.from_bytes(counter.read_bytes()[:8], sys.byteorder))
            self.usual[stage] = (time.monotonic() - began, *(counts or [0, 0]))  # type: ignore[assignment]
        return self.usual[stage]

    def _empty_the_cache(self) -> None:
        if self.cluster is not None:
            shutil.rmtree(self.project.cache, ignore_errors=True)

    def _disturb(self, kind: str, stage: str) -> tuple[float, int, str]:
        seconds, n_writes, n_reads = self._usual(stage)
        self._empty_the_cache()
        environment: dict[str, str] = {}
        moment = round(self.random.uniform(0.1, 1.05 * seconds), 2)
        with self._counter() as counter:
            if kind in ("kill at a write", "die at a write", "full disk", "read-only disk"):
                moment = float(self.random.randint(1, max(n_writes, 1)))
                what = {"kill at a write": "kill", "die at a write": "die", "full disk": str(errno.ENOSPC)}
                environment = self._faults(counter, "write", int(moment), what.get(kind, str(errno.EROFS)))
            elif kind == "reading fails":
                moment = float(self.random.randint(1, max(n_reads, 1)))
                below = self.random.choice(["artifacts", "photos", ".dvc/tmp/headstart"])
                environment = self._faults(counter, "read", int(moment), str(errno.EIO), below)
            elif kind == "clock jumps":
                moment = float(self.random.randint(1, 200))
                ahead = self.random.choice([-86_400 * 400, -3_600, 3_600, 86_400 * 400])
                environment = self._faults(counter, "write", 0, "0")
                environment |= {"FAULT_CLOCK": str(ahead), "FAULT_CLOCK_AT": str(int(moment))}
            mb = self.random.randint(150, 900) if kind == "little memory" else 0
            with self._started(stage, environment, mb) as process:
                if kind in (*KILLS, *SIGNALS, KILL_A_WORKER) and "write" not in kind:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(moment)
                    self._signal(kind, process)
                try:
                    status = process.wait(_MOST_S)
                except subprocess.TimeoutExpired:
                    return moment, -99, "it did not end"
                self._wait_for_the_end()
        return moment, status, self._log.read_text(errors="replace")

    def _complaint(self, kind: str, status: int, said: str) -> str:
        """Return what is wrong with how the disturbed run ended."""
        if status == -99:
            return said
        if kind in _MUST_SUCCEED and status:
            return f"it failed: {said[-1500:]}"
        if kind in DISKS and "Traceback" in said and re.search(r'File ".*/(headstart|tasks)/', said):
            return f"a traceback: {said[-2500:]}"
        return ""

    def _signal(self, kind: str, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            match kind:
                case "kill all":
                    os.killpg(process.pid, signal.SIGKILL)
                case "kill dvc":
                    process.kill()
                case "kill the stage":
                    for child in psutil.Process(process.pid).children(recursive=True):
                        child.kill()
                case "kill a worker":
                    assert self.cluster is not None
                    self.cluster.replace(self.random.randrange(len(self.cluster.workers)))
                case "terminate all":
                    os.killpg(process.pid, signal.SIGTERM)
                case "interrupt all":
                    os.killpg(process.pid, signal.SIGINT)
                case "stop and go":
                    os.killpg(process.pid, signal.SIGSTOP)
                    time.sleep(self.random.uniform(0.2, 2))
                    os.killpg(process.pid, signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.project.root.parent / f"{self.project.root.name}.log"

    @contextlib.contextmanager
    def _started(
        self, stage: str, environment: Mapping[str, str], memory_mb: int = 0
    ) -> Iterator[subprocess.Popen[bytes]]:
        foreign = ("PREFECT_", "DVC_", "FAULT_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PATH": path, "HEADSTART_CACHE": str(self.project.cache), "HOME": str(self.project.root.parent)}
        command = [sys.executable, "-P", "-m", "dvc", "repro", "--force", "--single-item", stage]
        if self.under == "flow":
            own["PREFECT_HOME"] = str(self.project.root.parent / f"{self.project.root.name}.prefect")
            command = [sys.executable, "-m", "flows.pipeline", "--force", *([] if stage == ALL else [stage])]
        if memory_mb:
            command = ["sh", "-c", f'ulimit -v {memory_mb * 1000}; exec "$@"', "sh", *command]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.project.root,
                env={**inherited, **own, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait_for_the_end(self) -> None:
        """Wait until no process of the project is left: a stage ends by itself when its DVC is gone."""
        until = time.monotonic() + _ENDS_S
        while self._left() and time.monotonic() < until:
            time.sleep(0.1)
        assert not (left := self._left()), left

    def _left(self) -> list[list[str]]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.project.root:
                    found.append(process.cmdline())
        return found

    @contextlib.contextmanager
    def _counter(self) -> Iterator[Path]:
        counter = self.project.root.parent / f"{self.project.root.name}.counter"
        counter.write_bytes(bytes(16))
        yield counter

    def _faults(self, counter: Path, of: str, at: int, what: str, below: str = "") -> dict[str, str]:
        made = shim()
        if made is None:
            return {}
        under = {"FAULT_UNDER": str(self.project.root / below), "FAULT_COUNTER": str(counter)}
        return {"LD_PRELOAD": str(made), "FAULT_OF": of, "FAULT_AT": str(at), "FAULT_DO": what, **under}
