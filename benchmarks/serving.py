"""`headstart serve` under load, with and without batches, and beside the server of another checkout.

It needs wrk (Debian's package of this name) and a finished model, `--model`. `--against CHECKOUT`: a folder with
another version of headstart, such as one of `git worktree add`. The servers take turns; all run at the same time, idle
but one. Where others use the cores, requests a second say how much of them a server was given, and the processor's time
for a request says what it needs.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import ROOT, arguments, machine, result, table

BEFORE, NOW = "the other checkout", "serve"
TIMES = 2.0  # requests a second at the larger number of clients, over the other checkout's
_IDLE_S = 0.02  # processor's time of half a second
SCRIPT = """
local bodies, turn = {{}}, 0
for path in io.lines("{list}") do
  local file = io.open(path, "rb"); bodies[#bodies + 1] = file:read("*a"); file:close()
end
request = function()
  turn = turn + 1
  return wrk.format("POST", "/predict", {{["Content-Type"] = "image/jpeg"}}, bodies[turn % #bodies + 1])
end
done = function(summary, latency)
  local errors = summary.errors
  local n_errors = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  print(string.format("requests=%d us=%d p50=%d p99=%d errors=%d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), n_errors))
end
"""


class Server(NamedTuple):
    """A server under way."""

    pid: int
    url: str

    def cpu_s(self) -> float:
        """Return the processor's time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Measured(NamedTuple):
    """One round of one server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the server, for a request
    n_errors: int


@contextmanager
def started(root: Path, model: Path, log: Path, *options: str) -> Iterator[Server]:
    """Yield a server of the code in `root`, and end it."""
    command = [sys.executable, "-m", "headstart", "serve", str(model), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with log.open("wb") as out, subprocess.Popen(command, cwd=root, env=environment, stdout=out, stderr=out) as process:
        try:
            while not (found := re.search(r"running on (http://\S+)", log.read_text())):
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.1)
            yield Server(process.pid, found[1])
        finally:
            process.terminate()


def wait_until_idle(server: Server) -> None:
    """Wait until the server has finished what clients that are gone have asked."""
    before_s = -1.0
    while server.cpu_s() - before_s > _IDLE_S:
        before_s = server.cpu_s()
        time.sleep(0.5)


def measured(server: Server, script: Path, n_clients: int, seconds: int) -> Measured:
    """Let clients ask without a pause."""
    command = ["wrk", "-t1", f"-c{n_clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), server.url]
    began_s = server.cpu_s()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu_s = server.cpu_s() - began_s
    wait_until_idle(server)
    found = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", said)}
    n_requests = found["requests"]
    per_second = n_requests / found["us"] * 1e6
    return Measured(per_second, found["p50"] / 1e3, found["p99"] / 1e3, 1e3 * cpu_s / n_requests, found["errors"])


def main() -> None:
    """Measure, and print a table and the ratios."""
    given = arguments(
        __doc__, model=ROOT / "artifacts" / "model", against="", clients=[1, 64], rounds=5, seconds=8, batch_ms=5
    )
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH. Install it: `apt-get install wrk`.")
    photographs = sorted(path for path in given.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:40]
    versions = {BEFORE: (Path(given.against).resolve(), [])} if given.against else {}
    versions |= {NOW: (ROOT, []), f"{NOW} --batch-ms {given.batch_ms}": (ROOT, ["--batch-ms", str(given.batch_ms)])}
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths, script = Path(folder, "photographs"), Path(folder, "load.lua")
        paths.write_text("".join(f"{path}\n" for path in photographs))
        script.write_text(SCRIPT.format(list=paths))
        servers = {
            name: stack.enter_context(started(root, given.model.resolve(), Path(folder, f"log-{number}"), *options))
            for number, (name, (root, options)) in enumerate(versions.items())
        }
        for _ in range(given.rounds):
            for n_clients in given.clients:
                for name, server in servers.items():
                    found[name, n_clients].append(measured(server, script, n_clients, given.seconds))
    medians = {
        each: Measured(*(statistics.median(values) for values in zip(*rounds, strict=True)))
        for each, rounds in found.items()
    }
    print(machine())
    table(
        ["server", "clients", "requests a second", "p50, ms", "p99, ms", "processor, ms a request", "errors"],
        [[name, n_clients, *medians[name, n_clients]] for n_clients in given.clients for name in servers],
    )
    few, many = min(given.clients), max(given.clients)
    if given.against:
        before, now = medians[BEFORE, many], medians[NOW, many]
        ratio = now.per_second / before.per_second
        result("serving_requests_over_before", ratio, "times", TIMES, ratio >= TIMES)
        result("serving_processor_time_over_before", now.cpu_ms / before.cpu_ms, "times", None, None)
        result("serving_p99_over_before", now.p99_ms / before.p99_ms, "times", 1.0, now.p99_ms <= before.p99_ms)
        alone = medians[NOW, few].p50_ms / medians[BEFORE, few].p50_ms
        result("serving_one_client_over_before", alone, "times", 1.0, alone <= 1)
    batched = medians[f"{NOW} --batch-ms {given.batch_ms}", many].per_second / medians[NOW, many].per_second
    result("serving_requests_in_batches_over_without", batched, "times", None, None)


if __name__ == "__main__":
    main()
