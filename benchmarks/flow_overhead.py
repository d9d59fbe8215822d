"""What Prefect costs: the flow against `dvc repro` on the embedded dataset, in turn, with nothing and with all to do.

With a Prefect server that runs, as a team has one, and with the temporary one that starts where there is none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import arguments, machine, project, result, run, table

TARGET_S = 5.0
TARGET_SHARE = 0.10
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@contextmanager
def server(home: Path) -> Iterator[str]:
    """Yield the address of a Prefect server with SQLite in `home`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home)}
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=null, stderr=null, start_new_session=True)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def main() -> None:
    """Run both in turn and compare them pair by pair."""
    given = arguments(__doc__, data=False, rounds=5)
    flow = ("python", "-m", "flows.pipeline")
    rows = []
    with project() as root, contextlib.ExitStack() as stack:
        os.environ.update(QUIET, PREFECT_HOME=str(root / ".dvc" / "prefect"))
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        run(root, "git", *author, "commit", "--quiet", "--allow-empty", "-m", "begin")
        run(root, "dvc", "repro")
        run(root, *flow)  # the temporary server makes its database at its first start

        def compared(name: str, dvc: list[str], under_prefect: list[str]) -> tuple[float, float]:
            times: dict[str, list[float]] = {"dvc": [], "flow": []}
            for _ in range(given.rounds):
                times["dvc"].append(run(root, *dvc)[0])
                times["flow"].append(run(root, *under_prefect)[0])
            plain, flowed = (statistics.median(each) for each in times.values())
            pairs = [under - alone for alone, under in zip(times["dvc"], times["flow"], strict=True)]
            more = statistics.median(pairs)
            spread = f"{min(pairs):.1f} to {max(pairs):.1f}"
            rows.append([name, plain, flowed, more, spread, f"{more / plain:.0%}"])
            return plain, more

        compared("nothing to do, temporary server", ["dvc", "repro"], [*flow])
        os.environ["PREFECT_API_URL"] = stack.enter_context(server(root / ".dvc" / "server"))
        run(root, *flow)
        nothing = compared("nothing to do", ["dvc", "repro"], [*flow])
        everything = compared("every stage, forced", ["dvc", "repro", "--force"], [*flow, "--force"])
    print(f"\ndigits, median of {given.rounds}; {machine()}")
    table(["", "`dvc repro`, s", "flow, s", "more in a pair, s", "from to", "more"], rows)
    for name, (plain, more) in (("nothing", nothing), ("everything", everything)):
        target = max(TARGET_S, TARGET_SHARE * plain)
        result(f"flow_overhead_{name}", more, "s", target, more <= target)


if __name__ == "__main__":
    main()
