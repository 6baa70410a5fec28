"""How this site gets the data it lacks, as a client of the library (no input or output).

The library asks for pages and log records by itself, but only when a message comes in: an answer
that was lost with its sender is never asked for again while all is quiet. Native sites are woken
by each heartbeat; here the clock does it, when nothing arrived for a while.

Who is asked: the configured peer, to spare the master, as long as it answers.

When: at once, or, with delayed sync, some time after a new master was found, so that not all sites
ask it for everything in its first moment. Until then what is here can be read.

Source: Programmer's Reference, "Initializing a new site", "Client-to-client synchronization",
"Delaying client synchronization".
"""

import math

from replication.bodies import SiteAddress
from replication.effects import AskAgain, Outbox, RoleChanged, SyncNow
from replication.remembered import Remembered
from replication.settings import GroupSettings
from replication.sites import Sites, SiteState
from replication.sync_tries import SyncTries

SILENCE_S = 1.0  # without progress for so long, what is missing is asked for again
SILENCE_S_MAX = 10.0  # again and again, ever more seldom: the answer may be long under way
PEER_SILENT_S = 2.0  # a peer that said nothing for so long is not asked any more


class CatchUp:
    """See the module's text.

    Args:
        settings: the operator's.
        sites: the other sites.
        remembered: where it is written down whether the copy is complete.
        out: where effects go.
        complete: the copy here is complete at the start.

    Attributes:
        syncing: internal initialisation replaces the copy here.
        complete: the copy here can be read.
        startup_done: this site is in step with its master.
        tries: counts the copies that came to nothing.
        delayed_until_s: the sync waits until then, infinity: until it is asked for; None: it does
            not wait.
    """

    def __init__(
        self,
        settings: GroupSettings,
        sites: Sites,
        remembered: Remembered,
        out: Outbox,
        *,
        complete: bool,
    ) -> None:
        self.syncing = False
        self.complete = complete
        self.startup_done = False
        self.delayed_until_s: float | None = None
        self.tries = SyncTries(settings.sync_tries_max, remembered, out)
        self._delays = settings.delayed_sync
        self._delay_s = settings.sync_delay_s or math.inf
        self._peers = [remote.address for remote in settings.remotes if remote.peer]
        self._sites = sites
        self._remembered = remembered
        self._out = out
        self._progress = -1
        self._moved_s = 0.0
        self._wait_s = SILENCE_S
        self._asked: SiteAddress | None = None
        self._without_peers = False

    # -- where the copy stands -----------------------------------------------------------------

    def started(self, generation: int) -> None:
        """Internal initialisation begins: the copy here is not complete until it ends.

        Args:
            generation: of the master whose files are copied.
        """
        if not self.syncing:
            self.syncing, self.complete, self.startup_done = True, False, False
            self._remembered.complete(False)
            self._out.do(RoleChanged())
        self.tries.begun(generation)

    def finished(self) -> None:
        """The copy here is complete and in step, or this site is master."""
        self.syncing, self.complete, self.startup_done = False, True, True
        self._without_peers = False
        self.delayed_until_s = None
        self.tries.over()
        self._remembered.complete(True)

    def log_is_gone(self) -> None:
        """A record that this site asked for was removed where it was asked for."""
        if self.syncing:
            self.tries.broken("the log that belongs to its pages was removed on the other side")

    def new_master(self, now_s: float, generation: int) -> None:
        """Another one, or another generation: the library begins to compare logs anew."""
        self.tries.new_master(generation)
        self.startup_done = False
        self._without_peers = False
        if self._delays:
            self.delayed_until_s = now_s + self._delay_s
            seconds = None if math.isinf(self._delay_s) else self._delay_s
            self._out.note("sync_delayed", seconds=seconds)
            self._out.do(RoleChanged())

    def try_again(self, now_s: float) -> None:
        """The operator wants the copy to be tried again that was given up."""
        self.tries.over()
        self._moved_s, self._wait_s = now_s, SILENCE_S
        self._out.note("sync_begun")
        # What was asked for before was not taken.
        self._out.do(AskAgain())
        self._out.do(RoleChanged())

    def sync_now(self, now_s: float) -> None:
        """The sync that was delayed begins."""
        self.delayed_until_s = None
        self._moved_s = now_s
        self._out.note("sync_begun")
        self._out.do(SyncNow())
        self._out.do(RoleChanged())

    @property
    def busy(self) -> bool:
        """What is missing is missing on purpose, or on its way."""
        given_up = self.tries.given_up is not None
        return self.syncing or self.delayed_until_s is not None or given_up

    # -- who is asked --------------------------------------------------------------------------

    def peer(self, master: SiteAddress | None) -> SiteState | None:
        """The first configured peer that is connected, None: ask the master.

        What it cannot answer it refuses, and the library asks the master.
        """
        if self._without_peers:
            return None
        for address in self._peers:
            state = self._sites.get(address)
            if address != master and state is not None and state.link is not None:
                return state
        return None

    # -- the clock -----------------------------------------------------------------------------

    def tick(self, now_s: float, master: SiteAddress, progress: int) -> None:
        """Look whether it goes on; called while a master is connected.

        Args:
            master: whom this site follows.
            progress: counts what came of the copy; any change is progress.
        """
        if self.startup_done or self.tries.given_up is not None:
            return
        if self.delayed_until_s is not None:
            if now_s >= self.delayed_until_s:
                self.sync_now(now_s)
            return
        peer = self.peer(master)
        if self._asked is not None and (peer is None or peer.address != self._asked):
            self._ask_again(now_s, f"{self._asked} is gone")
        elif peer is not None and peer.link is not None and self.syncing:
            silent_s = now_s - max(peer.link.heard_s, peer.link.since_s)
            if silent_s > PEER_SILENT_S:
                self._without_peers, peer = True, None
                self._out.do(RoleChanged())
                self._ask_again(now_s, f"{self._asked} said nothing for {silent_s:.1f} s")
        self._asked = peer.address if peer is not None else None
        if progress != self._progress:
            self._progress, self._moved_s, self._wait_s = progress, now_s, SILENCE_S
        elif now_s - self._moved_s >= self._wait_s:
            self._ask_again(now_s, f"nothing came for {self._wait_s:g} s")

    def _ask_again(self, now_s: float, reason: str) -> None:
        self._moved_s = now_s
        self._wait_s = min(2 * self._wait_s, SILENCE_S_MAX)
        if self.syncing:
            self._out.note("sync_asked_again", reason=reason)
        if self._delays:
            # It began without a master to ask, or the library delays again.
            self._out.do(SyncNow())
        self._out.do(AskAgain())
