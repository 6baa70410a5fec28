"""What is done to a simulated group: one fault after the other, several at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from replication.bodies import SiteAddress
from replication.wire import Frame

PAUSE_S: Final = (0.2, 4.0)  # between two faults
Pair = tuple[SiteAddress, SiteAddress]


class Group(Protocol):
    """What faults are done to."""

    @property
    def names(self) -> Sequence[SiteAddress]: ...
    def masters(self) -> list[SiteAddress]: ...
    def is_up(self, site: SiteAddress) -> bool: ...
    def call_later(self, delay_s: float, call: Callable[[], None]) -> object: ...
    def fault(self, text: str) -> None: ...
    def cut(self, pairs: set[Pair]) -> None: ...
    def slow(self, pairs: set[Pair], seconds: float) -> None: ...
    def reset_links(self, one: SiteAddress, two: SiteAddress) -> None: ...
    def stop(self, site: SiteAddress, seconds: float) -> None: ...
    def crash(self, site: SiteAddress, *, power: bool) -> None: ...
    def shut_down(self, site: SiteAddress) -> None: ...
    def start(self, site: SiteAddress) -> None: ...
    def slow_disk(self, site: SiteAddress, seconds: float) -> None: ...


@dataclass
class Spoil:
    """How messages to the library are treated at a site: chances of each."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0


class Nemesis:
    """See the module's text.

    Args:
        group: whom it torments.
        dice: where chance comes from.
    """

    def __init__(self, group: Group, dice: random.Random) -> None:
        self._group = group
        self._dice = dice
        self._ended = False
        self._spoils: dict[SiteAddress, Spoil] = {}
        self._kept: dict[tuple[SiteAddress, int], list[Frame]] = {}
        self._faults: Sequence[tuple[int, Callable[[], None]]] = (
            (3, self._partition),
            (1, self._one_way),
            (2, self._reset),
            (1, self._slow),
            (2, self._messages),
            (3, self._stop),
            (2, self._kill),
            (1, self._power),
            (1, self._blackout),
            (1, self._shut_down),
            (1, self._slow_disk),
        )

    def begin(self) -> None:
        """Do the first fault soon."""
        self._group.call_later(self._dice.uniform(*PAUSE_S), self._next)

    def end(self) -> None:
        """No more of it; what is under way ends by itself or is ended by the group."""
        self._ended = True
        self._spoils.clear()

    def spoil(self, site: SiteAddress, eid: int, frames: list[Frame]) -> list[Frame]:
        """Lose, repeat and delay messages that come to a site from another, whose EID is given."""
        spoil = self._spoils.get(site)
        kept = self._kept.pop((site, eid), [])
        if spoil is None:
            return kept + frames
        passed: list[Frame] = []
        later: list[Frame] = []
        for frame in frames:
            if self._dice.random() < spoil.lost:
                continue
            (later if self._dice.random() < spoil.late else passed).append(frame)
            if self._dice.random() < spoil.twice:
                passed.append(frame)
        if later:
            self._kept[site, eid] = later
        return passed + kept

    # -- choosing ----------------------------------------------------------------------------------

    def _next(self) -> None:
        if self._ended:
            return
        weights = [weight for weight, _ in self._faults]
        [(_, fault)] = self._dice.choices(self._faults, weights)
        fault()
        self._group.call_later(self._dice.uniform(*PAUSE_S), self._next)

    def _after(self, low_s: float, high_s: float, call: Callable[[], None]) -> float:
        seconds = self._dice.uniform(low_s, high_s)
        self._group.call_later(seconds, call)
        return seconds

    def _victim(self) -> SiteAddress:
        """Return a site, mostly a master."""
        masters = self._group.masters()
        if masters and self._dice.random() < 0.6:
            return self._dice.choice(masters)
        return self._dice.choice(self._group.names)

    # -- faults ------------------------------------------------------------------------------------

    def _partition(self) -> None:
        kind = self._dice.choice(("half", "ring", "bridge", "single"))
        names = list(self._group.names)
        self._dice.shuffle(names)
        if kind == "single":
            victim = self._victim()
            reach = {(a, b) for a in names for b in names if victim not in (a, b)}
            text = f"single: {victim.host} alone"
        elif kind == "ring":
            reach = {(a, names[(i + 1) % len(names)]) for i, a in enumerate(names)}
            reach |= {(b, a) for a, b in reach}
            text = f"ring: {_hosts(names)}"
        else:
            middle = names.pop() if kind == "bridge" else None
            half = len(names) // 2
            one, two = names[:half], names[half:]
            reach = {(a, b) for part in (one, two) for a in part for b in part}
            text = f"{kind}: {_hosts(one)} | {_hosts(two)}"
            if middle is not None:
                reach |= {pair for a in names for pair in ((a, middle), (middle, a))}
                text += f", both reach {middle.host}"
        everybody = self._group.names
        cuts = {(a, b) for a in everybody for b in everybody if a != b} - reach
        self._begin_cut(cuts, text)

    def _one_way(self) -> None:
        one, two = self._pair()
        self._begin_cut({(one, two)}, f"one way: nothing from {one.host} to {two.host}")

    def _begin_cut(self, cuts: set[Pair], text: str) -> None:
        self._group.cut(cuts)

        def heal() -> None:
            if not self._ended:
                self._group.cut(set())
                self._group.fault("healed")

        seconds = self._after(0.5, 8.0, heal)
        self._group.fault(f"{text}, for {seconds:.1f} s")

    def _pair(self) -> Pair:
        one = self._victim()
        others = [name for name in self._group.names if name != one]
        return one, self._dice.choice(others)

    def _reset(self) -> None:
        one, two = self._pair()
        self._group.fault(f"links between {one.host} and {two.host} break")
        self._group.reset_links(one, two)

    def _slow(self) -> None:
        one, two = self._pair()
        late_s = self._dice.uniform(0.05, 1.5)
        self._group.slow({(one, two), (two, one)}, late_s)

        def heal() -> None:
            self._group.slow({(one, two), (two, one)}, 0.0)

        seconds = self._after(1.0, 6.0, heal)
        text = f"{one.host} and {two.host} hear each other up to {late_s:.2f} s late"
        self._group.fault(f"{text}, for {seconds:.1f} s")

    def _messages(self) -> None:
        site = self._victim()
        spoil = Spoil(*(self._dice.choice((0.0, 0.1, 0.3)) for _ in range(3)))
        self._spoils[site] = spoil

        def heal() -> None:
            self._spoils.pop(site, None)

        seconds = self._after(0.5, 5.0, heal)
        text = f"{site.host} loses {spoil.lost:.0%} of its messages, gets {spoil.twice:.0%} twice"
        self._group.fault(f"{text} and {spoil.late:.0%} late, for {seconds:.1f} s")

    def _stop(self) -> None:
        site = self._victim()
        seconds = self._dice.choice((0.3, 0.8, 1.5, 3.0, 3.0, 6.0))
        self._group.fault(f"{site.host} stands still for {seconds:.1f} s")
        self._group.stop(site, seconds)

    def _kill(self) -> None:
        self._down(self._victim(), "is killed", lambda s: self._group.crash(s, power=False))

    def _power(self) -> None:
        self._down(self._victim(), "loses power", lambda s: self._group.crash(s, power=True))

    def _blackout(self) -> None:
        self._group.fault("everybody loses power")
        for site in self._group.names:
            self._down(site, "loses power", lambda s: self._group.crash(s, power=True))

    def _shut_down(self) -> None:
        self._down(self._victim(), "is shut down", self._group.shut_down)

    def _down(self, site: SiteAddress, how: str, down: Callable[[SiteAddress], None]) -> None:
        if not self._group.is_up(site):
            return
        seconds = self._after(0.2, 6.0, lambda: None if self._ended else self._group.start(site))
        self._group.fault(f"{site.host} {how}, comes back after {seconds:.1f} s")
        down(site)

    def _slow_disk(self) -> None:
        site = self._victim()
        late_s = self._dice.choice((0.05, 0.3, 1.2))
        self._group.slow_disk(site, late_s)
        seconds = self._after(1.0, 5.0, lambda: self._group.slow_disk(site, 0.0))
        self._group.fault(
            f"the disk of {site.host} needs up to {late_s:.2f} s, for {seconds:.1f} s"
        )


def _hosts(names: Sequence[SiteAddress]) -> str:
    return " ".join(name.host for name in names)
