"""The long run: `python -m tests.sim --seeds 500 [--seed 7] [--sites 5] [--transcript]`."""

import argparse
import logging
import sys

from tests.sim.group import Group, Result
from tests.sim.plan import SITES_MAX, SITES_MIN, plan
from tests.sim.transcript import Transcript

LINES_OF_A_FAILURE = 60


def main() -> int:
    """Simulate a group for each seed; 0 when nothing was wrong in any."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--sites", type=int, choices=range(SITES_MIN, SITES_MAX + 1))
    parser.add_argument("--transcript", action="store_true", help="tell everything")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what the sites' own logs say is in the transcript
    failures = 0
    for seed in range(options.seed, options.seed + options.seeds):
        transcript = Transcript(everything=options.transcript)
        result = Group(plan(seed, options.sites), transcript).run()
        failures += result.failure is not None
        _tell(result, options.sites, everything=options.transcript)
    return 1 if failures else 0


def _tell(result: Result, sites: int | None, *, everything: bool) -> None:
    if everything:
        print("\n".join(result.lines))
    elif result.failure is not None:
        print("\n".join(result.lines[-LINES_OF_A_FAILURE:]))
    if result.failure is not None:
        given = f" --sites {sites}" if sites else ""
        replay = f"python -m tests.sim --seed {result.plan.seed}{given} --transcript"
        print(f"WRONG: {result.failure}\nHINT: replay it with `{replay}`")
    print(
        f"{result.plan}: {result.writes} writes, {result.ok} OK, {result.masters} masters,"
        f" {result.seconds:.1f} s simulated, digest {result.digest[:16]}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
