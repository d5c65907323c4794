"""python -m tests.fuzz --cases 1000000 --seed 7 harms so many bodies; --first N --cases 1 repeats one of them.

Prints what came of them, the rate, the slowest case and the memory it took, also when it is interrupted; ends with
status 1 at the first case that breaks a promise.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

from tests.fuzz.cases import Broken, Findings, Fuzz

SHOWN_EVERY = 10_000
REASONS_SHOWN = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    fuzz = Fuzz(arguments.seed)
    before, started = _peak_mebibytes(), time.process_time()
    end = arguments.first + arguments.cases
    try:
        for first in range(arguments.first, end, SHOWN_EVERY):
            findings = fuzz.run(first, min(SHOWN_EVERY, end - first))
            print(f"{findings.cases} cases, {findings.cases / findings.seconds:.0f} a second", flush=True)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    except KeyboardInterrupt:
        print("stopped; what follows is of the cases that are through")
    _show(fuzz.findings)
    print(f"CPU {time.process_time() - started:.1f} s; peak RSS {_peak_mebibytes():.1f} MiB, before {before:.1f} MiB")
    return 0


def _show(findings: Findings) -> None:
    print(f"seed {findings.seed}: {findings.cases} cases in {findings.seconds:.1f} s, nothing broken")
    print(f"slowest case {1000 * findings.slowest_seconds:.1f} ms of CPU")
    print(f"most that one case allocated {findings.peak_bytes / (1 << 20):.2f} MiB")
    for name, count in sorted(findings.counts.items()):
        print(f"  {count:10}  {name}")
    print("why unverified:")
    for reason, count in findings.reasons.most_common(REASONS_SHOWN):
        print(f"  {count:10}  {reason}")


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
