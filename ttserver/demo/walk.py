"""The walk-through of an operator and a user, step by step, with everything it has to show."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from storage.users import ADMINISTRATOR
from ttserver.demo import load, volumes
from ttserver.demo.group import Group
from ttserver.demo.site import DEADLINE_S, LOOK_S, SiteError, SiteProcess
from ttserver.summary import bytes_text, one_line

FIRST, THIRD = "US04.LTO.000001L6", "US04.LTO.000003L6"
LIVE_KEY = "US04.LTO.NOTE"
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
        group = self.group
        with self._client(group.master) as client:
            held = int(client.dbsize())
            if held >= volumes.VOLUMES:
                return f"{held} keys are there already"
            size = group.make_csv()
            begun_s = time.monotonic()
            with group.csv.open(newline="") as lines:
                stored = load.load(client, volumes.from_csv(lines), self._loaded)
        took_s = time.monotonic() - begun_s
        return f"{stored} volumes, {bytes_text(size)} of CSV, in {took_s:.1f} s"

    def _loaded(self, stored: int) -> None:
        self._tell(f"load the sample data: {stored} of {volumes.VOLUMES} volumes")

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
        with self._client(self.group.replicant) as client:
            count = int(client.dbsize())
            value = client.get(FIRST)
            found = client.execute_command("RANGE", FIRST, THIRD)
        with self._client(self.group.master) as client:
            expected, there = client.get(FIRST), int(client.dbsize())
        if value is None or value != expected:
            raise SiteError(f"{FIRST} is {value!r} on the replicant, {expected!r} on the master")
        if count != there:
            raise SiteError(f"the replicant holds {count} keys, the master {there}")
        if not found:
            raise SiteError(f"RANGE {FIRST} {THIRD} found nothing")
        return f"{count} keys; {FIRST} is {value.decode()}"

    def _refused(self) -> str:
        master = self.group.clients(self.group.master)
        with self._client(self.group.replicant) as client:
            try:
                client.set(FIRST, "mine")
            except redis.ReadOnlyError as error:
                if str(master) not in str(error):
                    raise SiteError(f"the refusal does not name {master}: {error}") from error
                return f"refused: READONLY {error}"
        raise SiteError("the replicant took a write")

    def _follow(self) -> str:
        value = f"written at {time.time():.3f}".encode()
        with self._client(self.group.master) as client:
            load.store(client, [(LIVE_KEY, value)])
        begun_s = time.monotonic()
        with self._client(self.group.replicant) as client:
            while client.get(LIVE_KEY) != value:
                if time.monotonic() - begun_s > DEADLINE_S:
                    raise SiteError(f"{LIVE_KEY} did not come within {DEADLINE_S:g} s")
                time.sleep(LOOK_S)
        return f"there {1000 * (time.monotonic() - begun_s):.0f} ms after OK"

    def _client(self, site: SiteProcess) -> redis.Redis:
        return load.connect(self.group.clients(site), ADMINISTRATOR, self.group.password)


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
