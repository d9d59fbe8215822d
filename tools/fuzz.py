"""Mutates what strangers hand over, and looks that nothing ends in a traceback: `make fuzz MINUTES=10`.

The targets are images, manifests, params.yaml, model folders and HTTP requests; see tests/support/fuzzing.py. The seed
is printed first. Findings are written to tests/corpus/TARGET/, where tests/hostile/test_fuzzed.py tries them in every
test run: mend the code, and commit the file. Exit status 1 if there were any.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys

from tests.support.fuzzing import CORPUS, TARGETS, fuzzed


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    keep = "also keep so many inputs of each target that ended in different ways, the smallest"
    parser.add_argument("--keep", type=int, default=0, metavar="N", help=keep)
    options = parser.parse_args()
    print(f"fuzz: seed {options.seed}, {options.minutes:g} minutes for {', '.join(options.targets)}", flush=True)
    n_findings = 0
    for name in options.targets:
        seconds = 60 * options.minutes / len(options.targets)
        found = fuzzed(name, seconds, options.seed)
        new = sorted(found.ways.values(), key=len)[: options.keep]
        for data in (*found.findings, *new):
            file = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        n_findings += len(found.findings)
        told = f"{found.n_tried} inputs, {len(found.ways)} ways to end, {len(found.findings)} findings"
        print(f"fuzz: {name}: {told}", flush=True)
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
