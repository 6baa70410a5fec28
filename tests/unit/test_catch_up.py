"""How a site gets the data it lacks: who is asked, and when it is asked for again."""

from __future__ import annotations

import math

import pytest

from replication.bodies import SiteAddress
from replication.catch_up import PEER_SILENT_S, SILENCE_S, SILENCE_S_MAX, CatchUp
from replication.effects import AskAgain, Note, Outbox, RoleChanged
from replication.memory import Memory
from replication.remembered import Remembered
from replication.settings import GroupSettings, RemoteSite
from replication.sites import LinkState, Sites

HERE, MASTER, PEER, OTHER = (SiteAddress("192.0.2.10", 5010 + number) for number in range(4))


class Script:
    """A site that catches up, a clock, and what came of it."""

    def __init__(
        self, *, peers: tuple[SiteAddress, ...] = (PEER,), delay_s: float | None = None
    ) -> None:
        self.sites = Sites()
        self.out = Outbox()
        remembered = Remembered(Memory(), self.out)
        remotes = tuple(RemoteSite(site, peer=site in peers) for site in (MASTER, PEER, OTHER))
        self.catch_up = CatchUp(
            GroupSettings(
                HERE, remotes, delayed_sync=delay_s is not None, sync_delay_s=delay_s or 0.0
            ),
            self.sites,
            remembered,
            self.out,
            complete=False,
        )
        self.now_s = 100.0
        self.progress = 0

    def link(self, site: SiteAddress) -> LinkState:
        state = self.sites.site(site)
        link = LinkState(1, state, True, False, False, True, self.now_s, self.now_s)
        state.links.append(link)
        return link

    def pass_s(self, seconds: float, *, moving: bool = False) -> list[float]:
        """Let time pass in ticks; returns when it was asked again, seconds from the start."""
        began_s, asked = self.now_s, []
        while self.now_s < began_s + seconds:
            self.now_s += 0.05
            self.progress += moving
            self.catch_up.tick(self.now_s, MASTER, self.progress)
            if any(isinstance(effect, AskAgain) for effect in self.out.take()):
                asked.append(round(self.now_s - began_s, 1))
        return asked

    def peer(self) -> SiteAddress | None:
        found = self.catch_up.peer(MASTER)
        return None if found is None else found.address


def test_the_first_connected_peer_is_asked() -> None:
    script = Script(peers=(PEER, OTHER))
    assert script.peer() is None
    other = script.link(OTHER)
    assert script.peer() == OTHER
    script.link(PEER)
    assert script.peer() == PEER
    other.site.links.clear()
    assert script.peer() == PEER
    # The master is asked as the master.
    assert script.catch_up.peer(PEER) is None


def test_nobody_else_is_asked_without_the_word_peer() -> None:
    script = Script(peers=())
    script.link(PEER)
    assert script.peer() is None


def test_what_does_not_come_is_asked_for_again_ever_more_seldom() -> None:
    script = Script()
    script.catch_up.started(1)
    assert script.pass_s(3, moving=True) == []
    first, second, third, *_ = script.pass_s(60)
    assert first == pytest.approx(SILENCE_S, abs=0.11)
    assert second - first == pytest.approx(2 * SILENCE_S, abs=0.11)
    assert third - second == pytest.approx(4 * SILENCE_S, abs=0.11)
    *_, before, last = script.pass_s(60)
    assert last - before == pytest.approx(SILENCE_S_MAX, abs=0.11)
    assert script.pass_s(1, moving=True) == []
    assert script.pass_s(1.5) == [pytest.approx(SILENCE_S, abs=0.11)]


def test_a_site_in_step_asks_for_nothing() -> None:
    script = Script()
    assert script.pass_s(3) != [], "also before the first page"
    script.catch_up.finished()
    assert script.pass_s(60) == []
    script.catch_up.new_master(script.now_s, 1)
    assert script.pass_s(3) != []


def test_the_rest_is_asked_for_at_once_when_the_peer_is_gone() -> None:
    script = Script()
    link = script.link(PEER)
    script.catch_up.started(1)
    assert script.pass_s(0.3, moving=True) == []
    link.site.links.clear()
    assert len(script.pass_s(0.3)) == 1
    assert script.peer() is None


def test_a_silent_peer_is_not_asked_any_more() -> None:
    script = Script()
    link = script.link(PEER)
    script.catch_up.started(1)
    script.out.take()
    # A busy master's log makes the library ask for one page at a time: that is no progress.
    asked = script.pass_s(3, moving=True)
    assert asked == [pytest.approx(PEER_SILENT_S, abs=0.11)]
    assert script.peer() is None
    link.heard_s = script.now_s
    assert script.peer() is None, "not before the next master, or the end of this"
    script.catch_up.finished()
    assert script.peer() == PEER


def test_only_a_sync_is_worth_a_line() -> None:
    def notes(script: Script) -> int:
        script.catch_up.tick(script.now_s, MASTER, 0)
        script.catch_up.tick(script.now_s + 1.1, MASTER, 0)
        return sum(isinstance(effect, Note) for effect in script.out.take())

    script = Script()
    assert notes(script) == 0
    script = Script()
    script.catch_up.started(1)
    assert notes(script) == 1


class TestDelay:
    """With db_rep_conf_delayclient."""

    def events(self, script: Script) -> list[str]:
        return [
            effect.event if isinstance(effect, Note) else type(effect).__name__
            for effect in script.out.take()
            if not isinstance(effect, RoleChanged)
        ]

    def delayed(self, delay_s: float) -> Script:
        script = Script(delay_s=delay_s)
        script.catch_up.new_master(script.now_s, 1)
        assert self.events(script) == ["sync_delayed"]
        assert script.catch_up.busy
        return script

    def test_a_sync_begins_after_its_time(self) -> None:
        script = self.delayed(5.0)
        assert script.pass_s(4.9) == []
        script.catch_up.tick(script.now_s + 0.2, MASTER, 0)
        assert self.events(script) == ["sync_begun", "SyncNow"]
        assert script.catch_up.delayed_until_s is None

    def test_without_a_time_it_begins_when_it_is_asked_for(self) -> None:
        script = self.delayed(0.0)
        assert script.pass_s(1000) == []
        assert math.isinf(script.catch_up.delayed_until_s or 0)
        script.catch_up.sync_now(script.now_s)
        assert self.events(script) == ["sync_begun", "SyncNow"]

    def test_what_does_not_come_is_begun_again_and_asked_for(self) -> None:
        script = self.delayed(0.0)
        script.catch_up.sync_now(script.now_s)
        script.out.take()
        script.catch_up.tick(script.now_s + 0.1, MASTER, 0)
        script.catch_up.tick(script.now_s + 2, MASTER, 0)
        assert self.events(script) == ["SyncNow", "AskAgain"]

    def test_the_next_master_delays_anew_and_being_master_ends_it(self) -> None:
        script = self.delayed(5.0)
        script.now_s += 4
        script.catch_up.new_master(script.now_s, 1)
        assert script.catch_up.delayed_until_s == script.now_s + 5
        script.catch_up.finished()
        assert not script.catch_up.busy

    def test_otherwise_nothing_waits(self) -> None:
        script = Script()
        script.catch_up.new_master(script.now_s, 1)
        assert self.events(script) == []
