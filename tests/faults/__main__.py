"""The long run: `python -m tests.faults --rounds 500 --seed 7 [--sites 3]`."""

import argparse
import random
import signal
import sys
from types import FrameType
from typing import NoReturn

from tests.faults.storm import Storm
from tests.faults.trio import trio
from tests.support.sites import fast_directory, running_sites


def main() -> int:
    """Kill real daemons under load as often as asked for; 0 when nothing acknowledged was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--sites", type=int, choices=(2, 3), default=2)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    print(f"{options.rounds} rounds, --seed {options.seed} --sites {options.sites}", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)

    if options.sites == 3:
        with fast_directory() as directory, trio(directory, options.seed, say) as group:
            group.run(options.rounds)
        return 0
    with fast_directory() as directory, running_sites(directory) as sites:
        master, replicant = sites("master"), sites("replicant")
        master.init("master", replicant)
        replicant.init("replicant", master)
        for site in (master, replicant):
            site.run()
        Storm(master, replicant, options.seed, say).run(options.rounds)
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
