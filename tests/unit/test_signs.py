"""When a site was heard, on real links: what counts, and what may have come long ago."""

from __future__ import annotations

import asyncio
from math import inf

from replication.bodies import SiteAddress
from replication.coldstart import OwnStanding
from replication.core import Core
from replication.memory import Memory
from replication.phase import Phase
from replication.settings import GroupSettings
from replication.signs import LATE_S, SignsOfLife
from replication.sites import LinkState, SiteState
from replication.wire import LSN_ZERO
from tests.support.links import Recorded, connection, until

A, B = (SiteAddress("192.0.2.10", port) for port in (5010, 5011))
STEP_S = 0.05


class Look:
    """A master with one link."""

    def __init__(self, link: Recorded, *, native: bool = False, heartbeats: bool = True) -> None:
        own = OwnStanding(A, 1, 1, LSN_ZERO, empty=False, has_membership=True, creator=True)
        settings = GroupSettings(A, heartbeat_send_s=0.2 if heartbeats else 0.0)
        self.core = Core(settings, own, None, Memory(), 1)
        self.core.phase = Phase.MASTER
        self.site: SiteState = self.core.site(B)
        self.state = LinkState(link.link.number, self.site, True, native, False)
        self.core.sites.links[link.link.number] = self.state
        self.link = link.link
        self.signs = SignsOfLife(self.core)
        self.now_s = 100.0
        for _ in range(3):
            self.look()

    def look(self, after_s: float = STEP_S) -> float:
        self.now_s += after_s
        self.signs.look(self.now_s, [self.link])
        return self.now_s


async def test_any_byte_is_a_sign_of_life() -> None:
    with connection() as (ours, theirs):
        end = Recorded(ours)
        look = Look(end)
        assert (look.site.heard_s, look.site.contact_s) == (None, -inf)
        end.link.start_reading()
        theirs.send(b"x")
        await until("it came", lambda: end.received)
        now_s = look.look()
        assert look.state.heard_s == look.site.heard_s == look.site.contact_s == now_s
        look.look()
        assert look.site.heard_s == look.site.contact_s == now_s
        end.link.close("over")


async def test_what_is_read_after_a_standstill_may_have_come_long_before() -> None:
    with connection() as (ours, theirs):
        end = Recorded(ours)
        look = Look(end)
        look.look(LATE_S + 0.1)
        # The process stood still: the replicant must not take that for its master's silence.
        assert look.site.heard_s == look.now_s
        assert look.site.contact_s == -inf
        end.link.start_reading()
        theirs.send(b"x")
        await until("it is read", lambda: end.received)
        look.look()
        assert look.site.contact_s == -inf, "but a master has heard nobody by that"
        theirs.send(b"y")
        await until("more comes", lambda: len(end.received) == 2)
        assert look.site.contact_s < look.look() == look.site.contact_s
        end.link.close("over")


async def test_a_native_site_answers_no_rounds_but_its_host_confirms_what_it_received() -> None:
    with connection() as (ours, theirs):
        end = Recorded(ours)
        look = Look(end, native=True)
        end.link.write(b"a heartbeat")
        await asyncio.get_running_loop().sock_recv(theirs, 100)
        await until("it is confirmed", lambda: end.link.confirmed_ago_s() < 0.05)
        look.look()
        assert look.now_s - 0.1 < look.site.contact_s <= look.now_s
        await until("long ago", lambda: end.link.confirmed_ago_s() > 0.1)
        before_s = look.site.contact_s
        look.look(0.0)
        assert look.site.contact_s == before_s
        end.link.close("over")
        assert end.link.confirmed_ago_s() == inf


async def test_without_heartbeats_a_native_link_that_stands_has_to_do() -> None:
    with connection() as (ours, _theirs):
        end = Recorded(ours)
        look = Look(end, native=True, heartbeats=False)
        look.look()
        assert look.site.contact_s == look.now_s
        end.link.close("over")
