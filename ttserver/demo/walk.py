"""The walk-through of an operator and a user, step by step, with everything it has to show."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from ttserver.client.errors import ServerError
from ttserver.demo.group import Group
from ttserver.demo.site import DEADLINE_S, LOOK_S, SiteError, SiteProcess
from ttserver.summary import one_line
from ttserver.tt import sample
from ttserver.tt.session import Session

FIRST = "US04.LTO.000000L6"
MOVED = 5  # tapes
LIVE_KEY = "note"
TELL_EACH = 100
JOURNAL_DEADLINE_S = 30.0

# What an operator looks for in the journals after the first start, in this order.
_MASTER_EVENTS = (
    "version_agreed",
    "member_confirmed",
    "connection_established",
    "sync_send_started",
    "sync_send_finished",
)
_REPLICANT_EVENTS = (
    "version_agreed",
    "member_confirmed",
    "connection_established",
    "generation_confirmed",
    "sync_receive_started",
    "sync_receive_finished",
    "startup_done",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Args:
        title: what is being done.
        act: does it and says in a few words what came of it; raises when it failed.
    """

    title: str
    act: Callable[[], str]


class Walk:
    """All steps on one group.

    Args:
        group: the sites.
        tell: called with how far the step under way is.
    """

    def __init__(self, group: Group, tell: Callable[[str], None]) -> None:
        self.group = group
        self._tell = tell

    def steps(self) -> Iterator[Step]:
        """Give the steps in their order; each one relies on those before it."""
        yield Step("make two sites", self.group.prepare)
        yield Step("start the master", self._start_master)
        load = Step("load the sample data", self._load)
        # A group of one meets every ack policy. One that ran before has two members.
        if self.group.fresh:
            yield load
        yield Step("start the replicant", self._start_replicant)
        yield Step("initial sync" if self.group.fresh else "sync", self._sync)
        if not self.group.fresh:
            yield load
        yield Step("read on the replicant", self._read)
        yield Step("write on the replicant", self._refused)
        yield Step("move tapes on the master, see them on the replicant", self._move)
        yield Step("write on the master, read on the replicant", self._follow)

    def journal_steps(self) -> Iterator[Step]:
        """Look at both journals; they tell of the first start only."""
        group = self.group
        yield Step("journal of the master", lambda: _told(group.master, _MASTER_EVENTS))
        yield Step("journal of the replicant", lambda: _told(group.replicant, _REPLICANT_EVENTS))

    def _start_master(self) -> str:
        master = self.group.master
        master.start()
        status = master.wait_running()
        return f"{status['role']}, generation {status['generation']}"

    def _load(self) -> str:
        with closing(self.group.session(self.group.master)) as session:
            there = int(session.read("VOLUME.COUNT"))
            if there >= sample.VOLUMES:
                return f"{there} volumes are there already"
            begun_s = time.monotonic()
            loaded = sample.put(session, sample.VOLUMES, self._count())
        if loaded.bad:
            raise SiteError(f"{len(loaded.bad)} volumes were not added: {loaded.bad[0][1]}")
        took_s = time.monotonic() - begun_s
        return f"{loaded.added} volumes added, {loaded.there} there already, in {took_s:.1f} s"

    def _count(self) -> Callable[[], None]:
        numbers = itertools.count(1)

        def advance() -> None:
            done = next(numbers)
            if done % TELL_EACH == 0:
                self._tell(f"load the sample data: {done} of {sample.VOLUMES} volumes")

        return advance

    def _start_replicant(self) -> str:
        replicant = self.group.replicant
        replicant.start()
        status = replicant.wait("answering", lambda status: status)
        return str(status["state"])

    def _sync(self) -> str:
        begun_s = time.monotonic()
        status = self.group.replicant.wait("running", self._synced)
        if status["role"] != "replicant" or not status["serving"]:
            raise SiteError(f"the replicant is running as {status['role']}")
        received = [e for e in self.group.replicant.events() if e.event == "sync_receive_finished"]
        facts = received[-1].facts if received else {}
        pages = f", {facts['pages']} pages received" if facts else ""
        return f"running after {time.monotonic() - begun_s:.1f} s{pages}"

    def _synced(self, status: dict[str, Any]) -> dict[str, Any] | None:
        self._tell(one_line(status))
        return status if status["state"] == "running" else None

    def _read(self) -> str:
        with self._both() as (master, replicant):
            count = int(master.read("VOLUME.COUNT"))
            _wait(f"{count} volumes", lambda: replicant.read("VOLUME.COUNT") == count)
            expected, found = (one.read("VOLUME.GET", FIRST) for one in (master, replicant))
        if found != expected:
            raise SiteError(f"{FIRST} is {found} on the replicant, {expected} on the master")
        where = found["current"]["repository"]
        return f"{count} volumes; {FIRST} {found['description']} is in {where}"

    def _refused(self) -> str:
        master = self.group.clients(self.group.master)
        with closing(self.group.session(self.group.replicant)) as session:
            try:
                session.write("VOLUME.MOVE", FIRST, "RACK")
            except ServerError as refusal:
                if refusal.code != "READONLY" or str(master) not in str(refusal):
                    raise SiteError(f"the refusal does not name {master}: {refusal}") from refusal
                return f"refused: {refusal.code} {refusal}"
        raise SiteError("the replicant took an update")

    def _move(self) -> str:
        asked = ("MATCH", "US04.LTO.*", "IN", "LIBR", "WITHOUT", "Mc", "COUNT", MOVED)
        with self._both() as (master, replicant):
            names = [row["name"] for row in master.read("VOLUME.LIST", 0, *asked)[1]]
            if not names:
                return "none is left in US04.LTO.LIBR"
            for name in names:
                _write(master, "VOLUME.MOVE", name, "OFFS")
            begun_s = time.monotonic()
            _wait("the moves", lambda: all(map(_moving, _get(replicant, names))))
            took_ms = 1000 * (time.monotonic() - begun_s)
            for name in names:
                _write(master, "VOLUME.CONFIRM", name)
            _wait("their arrival", lambda: all(map(_arrived, _get(replicant, names))))
            told = [record["what"] for record in replicant.read("VOLUME.HISTORY", names[0])[1]]
        if told[-2:] != ["move", "confirm"]:
            raise SiteError(f"the history of {names[0]} on the replicant is {told}")
        return (
            f"{len(names)} on their way there after {took_ms:.0f} ms, and confirmed in OFFS;"
            f" history of {names[0]}: {', '.join(told)}"
        )

    def _follow(self) -> str:
        value = f"written at {time.time():.3f}"
        with self._both() as (master, replicant):
            _write(master, "SET", LIVE_KEY, value)
            begun_s = time.monotonic()
            _wait(LIVE_KEY, lambda: replicant.read("GET", LIVE_KEY) == value)
        return f"there {1000 * (time.monotonic() - begun_s):.0f} ms after OK"

    @contextmanager
    def _both(self) -> Iterator[tuple[Session, Session]]:
        """Log on at the master and at the replicant."""
        master, replicant = (self.group.session(site) for site in self.group.sites)
        with closing(master), closing(replicant):
            yield master, replicant


def _write(session: Session, *command: object) -> None:
    """Have something written; a busy replicant may confirm it too late, and has it later."""
    try:
        session.write(*command)
    except ServerError as refusal:
        if refusal.code != "PERMFAILED":
            raise


def _get(session: Session, names: list[str]) -> list[Any]:
    return [session.read("VOLUME.GET", name) for name in names]


def _moving(volume: dict[str, Any]) -> bool:
    return "M" in volume["flags"] and volume["target"]["repository"] == "OFFS"


def _arrived(volume: dict[str, Any]) -> bool:
    return "M" not in volume["flags"] and volume["current"]["repository"] == "OFFS"


def _wait(what: str, condition: Callable[[], bool]) -> None:
    """Wait until the replicant has it."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end_s:
            raise SiteError(f"the replicant did not get {what} within {DEADLINE_S:g} s")
        time.sleep(LOOK_S)


def _told(site: SiteProcess, wanted: tuple[str, ...]) -> str:
    """Find these events in the journal, in this order; the last may take a moment."""
    end_s = time.monotonic() + JOURNAL_DEADLINE_S
    while missing := _first_missing([line.event for line in site.events()], wanted):
        if time.monotonic() > end_s:
            raise SiteError(
                f"the journal of the {site.name} does not tell of {missing}",
                hint=f"see {site.home.journal}",
            )
        time.sleep(LOOK_S)
    return ", ".join(wanted)


def _first_missing(told: list[str], wanted: tuple[str, ...]) -> str | None:
    at = 0
    for event in wanted:
        if event not in told[at:]:
            return event
        at = told.index(event, at) + 1
    return None
