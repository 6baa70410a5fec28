"""`repmgr`: Berkeley DB's own Replication Manager, driven from Python.

`repmgr-nodelay` is the same with TCP_NODELAY forced on: the library leaves Nagle's algorithm on,
so that a commit which waits for an acknowledgement mostly waits for a timer of the kernel. The
sockets are the library's; they are found among the process's descriptors by the replication ports.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from berkeleydb import db

from bench.cases import SiteSpec, Written
from bench.child import MissingError
from bench.engines.base import READY_TIMEOUT_S, NativeSite
from bench.environments import LOCAL_HOST, POLL_S
from ttserver.daemon import SWITCH_INTERVAL_S

MESSAGE_THREADS = 3
# As ttserver's own: both sides notice a lost peer, and a lost tail, equally fast.
ACK_TIMEOUT_US = 1_000_000
HEARTBEAT_SEND_US = 200_000
HEARTBEAT_MONITOR_US = 1_000_000
CONNECTION_RETRY_US = 1_000_000
ACK_POLICIES = {"none": db.DB_REPMGR_ACKS_NONE, "one": db.DB_REPMGR_ACKS_ONE}


class RepmgrSite(NativeSite):
    """A site of the Replication Manager.

    Args:
        spec: what to be.
        nodelay: force TCP_NODELAY on its connections.
    """

    def __init__(self, spec: SiteSpec, *, nodelay: bool = False) -> None:
        super().__init__(spec)
        if not hasattr(self.env, "repmgr_start"):
            raise MissingError("the binding was built without the Replication Manager")
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._nodelay = nodelay
        self._perm_failed = 0

    def _configure(self, env: db.DBEnv) -> None:
        case = self.spec.case
        own, other = self.spec.ports if self.is_master else self.spec.ports[::-1]
        try:
            local = env.repmgr_site(LOCAL_HOST, own)
        except db.DBError as error:
            raise MissingError(f"this library has no Replication Manager: {error}") from error
        local.set_config(db.DB_LOCAL_SITE, True)
        local.set_config(db.DB_GROUP_CREATOR, self.is_master)
        local.close()
        remote = env.repmgr_site(LOCAL_HOST, other)
        remote.set_config(db.DB_BOOTSTRAP_HELPER, not self.is_master)
        remote.close()
        env.repmgr_set_ack_policy(ACK_POLICIES[case.acks])
        env.rep_set_priority(int(self.is_master))
        env.rep_set_config(db.DB_REP_CONF_BULK, int(case.bulk))
        env.rep_set_timeout(db.DB_REP_ACK_TIMEOUT, ACK_TIMEOUT_US)
        env.rep_set_timeout(db.DB_REP_HEARTBEAT_SEND, HEARTBEAT_SEND_US)
        env.rep_set_timeout(db.DB_REP_HEARTBEAT_MONITOR, HEARTBEAT_MONITOR_US)
        env.rep_set_timeout(db.DB_REP_CONNECTION_RETRY, CONNECTION_RETRY_US)
        env.set_event_notify(self._event)
        if not self.is_master and case.durability != "sync":
            # ttserver's replicant flushes with "sync" and not otherwise; the library's does
            # unless it is told this.
            env.set_flags(db.DB_TXN_NOSYNC, 1)

    def _event(self, _env: db.DBEnv, what: int, *_: object) -> None:
        if what == db.DB_EVENT_REP_PERM_FAILED:
            self._perm_failed += 1

    def open(self) -> None:
        self.open_store(self._configure)
        role = db.DB_REP_MASTER if self.is_master else db.DB_REP_CLIENT
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.env.repmgr_start(MESSAGE_THREADS, role)
                break
            except db.DBRepUnavailError:  # the master is not there yet
                if time.monotonic() > deadline:
                    raise
        if self.is_master:
            self.store.open_keys(create=True)
            return
        while not self.env.rep_stat()["startup_complete"]:
            if time.monotonic() > deadline:
                raise TimeoutError("the replicant of repmgr did not get in step")
            time.sleep(POLL_S)

    def prepare(self) -> None:
        if self._nodelay:
            self._force_nodelay()
        self._perm_failed = 0

    def finish(self, written: Written) -> Written:
        written.perm_failed = self._perm_failed
        return written

    def _force_nodelay(self) -> None:
        """Set it on every link there is; the links are up before the first write.

        Raises:
            TimeoutError: there is no link.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (found := self._connections()):
            if time.monotonic() > deadline:
                raise TimeoutError("repmgr made no connection")
            time.sleep(POLL_S)
        for fd in found:
            sock = socket.socket(fileno=fd)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            finally:
                sock.detach()  # it stays the library's

    def _connections(self) -> list[int]:
        """Find the descriptors of this process's connections between the two ports' sites."""
        found = []
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are what is wanted
            with contextlib.suppress(OSError):  # closed meanwhile
                if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):  # noqa: PTH115
                    continue
                sock = socket.socket(fileno=int(name))
                try:
                    ends = {sock.getsockname()[1], sock.getpeername()[1]}
                except (OSError, IndexError):  # it listens, or is no internet socket
                    continue
                finally:
                    sock.detach()
                if ends & set(self.spec.ports):
                    found.append(int(name))
        return found

    def counters(self) -> dict[str, int]:
        if self._nodelay and (slow := [s for s in self._connections() if not _has_nodelay(s)]):
            raise RuntimeError(f"{len(slow)} links have lost TCP_NODELAY, or are new")
        stat = self.env.repmgr_stat()
        counters = super().counters()
        # A failed send of the library's is a dropped message of its manager's, counted once.
        counters["dropped"] = stat["msgs_dropped"]
        return counters | {
            "queued": stat["msgs_queued"],
            "connections_dropped": stat["connection_drop"],
        }

    def open_for_reading(self) -> None:
        if self.store.keys is None:
            self.store.open_keys(create=False)


def _has_nodelay(fd: int) -> bool:
    sock = socket.socket(fileno=fd)
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    finally:
        sock.detach()
