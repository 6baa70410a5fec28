"""Signs of life between a master and its replicants (no I/O).

A master sends a heartbeat when it takes over, on each new link, when it broadcast nothing for a
while, and now and then under load too, since they tell how far it is. A replicant that heard one
on a link takes silence there for the master's death; and when heartbeats name an LSN that it does
not reach although nothing else comes, a message was lost at the end of the log.
"""

from replication import effects
from replication.effects import Outbox
from replication.sites import LinkState
from replication.wire import LSN

GAP_SILENCE_S = 0.5  # behind a heartbeat's LSN without progress for so long: look for the gap
BUSY_FACTOR = 5  # under load heartbeats come so much more seldom


class Heartbeats:
    """See the module's text.

    Args:
        send_s: broadcast silence after which a master sends one; 0 for never.
        monitor_s: silence after which a monitored master counts as lost; 0 for never.
        out: where effects go.
    """

    def __init__(self, send_s: float, monitor_s: float, out: Outbox) -> None:
        self.master_heard_s: float | None = None
        self.master_lsn: LSN | None = None
        self.behind_since_s: float | None = None
        self._send_s = send_s
        self._monitor_s = monitor_s
        self._out = out
        self._sent_s = 0.0
        self._stuck: tuple[float, LSN] | None = None
        self._doubtful = False

    def new_master(self) -> None:
        """What was suspected of the old one is void."""
        self._stuck = None
        self._doubtful = False

    def gap_left(self) -> None:
        """Something is surely missing: sent while the master's link was broken, or dropped here."""
        self._doubtful = True

    def heard(
        self, now_s: float, lsn: LSN, applied: LSN, *, same_generation: bool, syncing: bool
    ) -> None:
        """A master's heartbeat came.

        Args:
            lsn: its last permanent record.
            applied: what was applied here.
        """
        self.master_lsn = lsn
        if lsn <= applied:
            self.behind_since_s = None
        elif self.behind_since_s is None:
            self.behind_since_s = now_s
        if not same_generation or lsn <= applied:
            self._stuck = None
        elif self._doubtful and not syncing:
            self._look_for_gap(now_s, lsn, applied)
        elif self._stuck is None or applied > self._stuck[1]:
            self._stuck = (now_s, applied)
        elif now_s - self._stuck[0] >= GAP_SILENCE_S and not syncing:
            self._look_for_gap(now_s, lsn, applied)

    def _look_for_gap(self, now_s: float, lsn: LSN, applied: LSN) -> None:
        self._doubtful = False
        self._stuck = (now_s, applied)
        self._out.note("gap_suspected", master_lsn=lsn, applied=applied)
        self._out.do(effects.StartClient())

    def send_due(self, now_s: float, last_broadcast_s: float) -> None:
        """As a master: send one when everything was silent, or when the last was long ago."""
        self._sent_s = self._sent_s or now_s
        silent_s = now_s - max(last_broadcast_s, self._sent_s)
        unsent_s = now_s - self._sent_s
        if self._send_s and (silent_s >= self._send_s or unsent_s >= BUSY_FACTOR * self._send_s):
            self._sent_s = now_s
            self._out.do(effects.SendHeartbeat())

    def took_over(self, now_s: float) -> None:
        """As a new master: send one on the links there are, which may have no silence for long."""
        if self._send_s:
            self._sent_s = now_s
            self._out.do(effects.SendHeartbeat())

    def greet(self, link: LinkState) -> None:
        """As a master: send one on a new link, from now on silence there means something."""
        if self._send_s:
            self._out.do(effects.SendHeartbeat(link.number))

    def watch(self, now_s: float, link: LinkState | None, generation: int) -> None:
        """As a replicant: give a silent master up, once it sent a heartbeat in its generation."""
        if link is None or link.monitored != generation or not self._monitor_s:
            return
        silent_s = now_s - link.heard_s
        if silent_s > self._monitor_s:
            reason = f"nothing heard from the master for {silent_s:.1f} s"
            self._out.do(effects.CloseLink(link.number, reason))
