"""The long run: `python -m tests.sim --seeds 500 [--seed 7] [--sites 5] [--transcript]`.

`--plant NAME` plants a bug first, and is content with the first seed that catches it; `--plants`
tries all of them.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from tests.sim.group import Group, Result
from tests.sim.plan import SITES_MAX, SITES_MIN, plan
from tests.sim.plants import BY_NAME, PLANTS, SEEDS_MAX, Plant, seek
from tests.sim.transcript import Transcript

LINES_OF_A_FAILURE = 60


def main() -> int:
    """Simulate a group for each seed; 0 when nothing was wrong in any, or all that was planted."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, help=f"how many: 1, or {SEEDS_MAX} for planted bugs")
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--sites", type=int, choices=range(SITES_MIN, SITES_MAX + 1))
    parser.add_argument("--transcript", action="store_true", help="tell everything")
    parser.add_argument("--plant", choices=BY_NAME, metavar="NAME", help=", ".join(BY_NAME))
    parser.add_argument("--plants", action="store_true", help="plant one bug after the other")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what the sites' own logs say is in the transcript
    planted = PLANTS if options.plants else (BY_NAME[options.plant],) if options.plant else ()
    if planted:
        seeds = range(options.seed, options.seed + (options.seeds or SEEDS_MAX))
        missed = sum(not _is_caught(each, seeds, everything=options.transcript) for each in planted)
        return 1 if missed else 0
    failures = 0
    for seed in range(options.seed, options.seed + (options.seeds or 1)):
        transcript = Transcript(everything=options.transcript)
        result = Group(plan(seed, options.sites), transcript).run()
        failures += result.failure is not None
        _tell(result, options.sites, everything=options.transcript)
    return 1 if failures else 0


def _is_caught(planted: Plant, seeds: Sequence[int], *, everything: bool) -> bool:
    found = seek(planted, seeds, everything=everything)
    if found is None:
        print(f"{planted.name}: NOT CAUGHT by {len(seeds)} seeds: {planted.bug}", flush=True)
        return False
    if everything:
        print("\n".join(found.lines))
    print(f"{planted.name}: caught by seed {found.plan.seed}: {found.failure}", flush=True)
    return True


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
