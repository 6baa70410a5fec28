"""A site of Berkeley DB's own Replication Manager: `python -m tests.support.native_site SPEC`.

The parent's end is `tests.support.native`. A native application as the manual describes one:
the library's transport, elections and membership, one btree, no code of ours but the child's pipe
and the DB_CONFIG of a small environment.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from berkeleydb import db

from bench import child
from replication.membership import GMDB_DATABASE, GMDB_FILE
from tests.support.environments import LINES
from tests.support.native_channel import Channel

MESSAGE_THREADS = 3
OPEN_FLAGS = (
    db.DB_CREATE
    | db.DB_INIT_LOCK
    | db.DB_INIT_LOG
    | db.DB_INIT_MPOOL
    | db.DB_INIT_REP
    | db.DB_INIT_TXN
    | db.DB_THREAD
)
ROLES = {
    "master": db.DB_REP_MASTER,
    "client": db.DB_REP_CLIENT,
    "election": db.DB_REP_ELECTION,
}
EVENTS = {
    value: name.removeprefix("DB_EVENT_").removeprefix("REP_").lower()
    for name, value in vars(db).items()
    if name.startswith("DB_EVENT_")
}


class Spec(msgspec.Struct, kw_only=True):
    """What the site is.

    Args:
        home: its environment's directory.
        host, port: its own address.
        creator: it makes the group.
        helpers: addresses of sites through which it joins.
        peers: addresses of sites it may copy from, instead of the master.
        timeouts_us: by the library's names without `DB_REP_`.
        keys_file: its btree.
        subordinate: a second process at a site whose first one listens; no recovery.
        sync: commits and applied transactions are flushed.
    """

    home: str
    host: str
    port: int
    creator: bool = False
    helpers: list[tuple[str, int]] = []
    peers: list[tuple[str, int]] = []
    priority: int = 100
    acks: str = "one"
    bulk: bool = False
    strict: bool = True
    elections: bool = True
    timeouts_us: dict[str, int] = {}
    keys_file: str = "keys.db"
    subordinate: bool = False
    sync: bool = False
    verbose: bool = False


class Request(msgspec.Struct, kw_only=True):
    """What the parent wants.

    Args:
        do: the name of a method of `NativeSite`.
        arguments: its arguments.
    """

    do: str
    arguments: dict[str, Any] = {}


class NativeSite:
    """The site; each public method is a request.

    Args:
        spec: what to be.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._env = db.DBEnv()
        self._keys: db.DB | None = None
        self._events: Counter[int] = Counter()
        self._master_eid: int | None = None
        self._load: threading.Thread | None = None
        self._loading = threading.Event()
        self._written = 0

    def _event(self, _env: db.DBEnv, what: int, argument: Any = None) -> None:
        self._events[what] += 1
        if what == db.DB_EVENT_REP_NEWMASTER:
            self._master_eid = argument
        elif what == db.DB_EVENT_REP_MASTER:
            self._master_eid = None

    def start(self, role: str) -> None:
        """Open the environment and begin; *role* as in ROLES."""
        spec, env = self._spec, self._env
        home = Path(spec.home)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "DB_CONFIG").exists():
            (home / "DB_CONFIG").write_text("".join(f"{line}\n" for line in LINES))
        env.set_event_notify(self._event)
        env.set_lk_detect(db.DB_LOCK_DEFAULT)
        if spec.verbose:
            env.set_verbose(db.DB_VERB_REPLICATION, 1)
        if not spec.sync:
            env.set_flags(db.DB_TXN_NOSYNC, 1)
        env.open(spec.home, OPEN_FLAGS | (0 if spec.subordinate else db.DB_RECOVER), 0o600)
        self._configure()
        env.repmgr_start(MESSAGE_THREADS, ROLES[role])

    def _configure(self) -> None:
        spec, env = self._spec, self._env
        local = env.repmgr_site(spec.host, spec.port)
        local.set_config(db.DB_LOCAL_SITE, True)
        local.set_config(db.DB_GROUP_CREATOR, spec.creator)
        local.close()
        for host, port in sorted({*spec.helpers, *spec.peers}):
            site = env.repmgr_site(host, port)
            site.set_config(db.DB_BOOTSTRAP_HELPER, (host, port) in spec.helpers)
            site.set_config(db.DB_REPMGR_PEER, (host, port) in spec.peers)
            site.close()
        env.rep_set_priority(spec.priority)
        self.set_acks(spec.acks)
        env.rep_set_config(db.DB_REP_CONF_BULK, int(spec.bulk))
        env.rep_set_config(db.DB_REPMGR_CONF_2SITE_STRICT, int(spec.strict))
        env.rep_set_config(db.DB_REPMGR_CONF_ELECTIONS, int(spec.elections))
        for name, value_us in spec.timeouts_us.items():
            env.rep_set_timeout(getattr(db, f"DB_REP_{name}"), value_us)

    # -- data

    def _open_keys(self) -> db.DB:
        if self._keys is None:
            keys = db.DB(self._env)
            master = self._env.rep_stat()["status"] == db.DB_REP_MASTER
            flags = db.DB_THREAD | db.DB_AUTO_COMMIT | (db.DB_CREATE if master else 0)
            keys.open(self._spec.keys_file, dbtype=db.DB_BTREE, flags=flags)
            self._keys = keys
        return self._keys

    def _close_keys(self) -> None:
        if self._keys is not None:
            self._keys.close(db.DB_NOSYNC)
            self._keys = None

    def put(self, items: dict[str, str]) -> int:
        """Write each in a transaction of its own; return how many the policy was not met for."""
        before = self._events[db.DB_EVENT_REP_PERM_FAILED]
        for key, value in items.items():
            self._put_one(key.encode(), value.encode())
        return self._events[db.DB_EVENT_REP_PERM_FAILED] - before

    def _put_one(self, key: bytes, value: bytes) -> None:
        while True:
            txn = None
            try:
                keys = self._open_keys()
                txn = self._env.txn_begin()
                keys.put(key, value, txn)
                txn.commit()
            except (db.DBLockDeadlockError, db.DBRepHandleDeadError) as error:
                if txn is not None:
                    txn.abort()
                if isinstance(error, db.DBRepHandleDeadError):
                    self._close_keys()
                continue
            return

    def items(self) -> dict[str, str]:
        """Read everything; nothing as long as there is no such database."""
        while True:
            try:
                found = self._open_keys().items()
            except (db.DBRepHandleDeadError, db.DBLockDeadlockError, db.DBRepLockoutError):
                self._close_keys()
                continue
            except db.DBNoSuchFileError:
                self._close_keys()
                return {}
            return {key.decode(): value.decode() for key, value in found}

    def begin_load(self, prefix: str, value_size: int = 100) -> None:
        """Write all the time."""

        def run() -> None:
            while self._loading.is_set():
                self._put_one(b"%s:%06d" % (prefix.encode(), self._written), bytes(value_size))
                self._written += 1

        self._loading.set()
        self._load = threading.Thread(target=run, daemon=True)
        self._load.start()

    def end_load(self) -> int:
        """Stop writing; return how many there were."""
        self._loading.clear()
        if self._load is not None:
            self._load.join()
        return self._written

    def flush(self) -> None:
        """Have its log on the disk: without `sync` a killed process loses what was in memory."""
        self._env.log_flush()

    # -- the group

    def stat(self) -> dict[str, Any]:
        """How it is, for the parent; see `tests.support.native.Stat`."""
        stat, manager = self._env.rep_stat(), self._env.repmgr_stat()
        roles = {db.DB_REP_MASTER: "master", db.DB_REP_CLIENT: "client"}
        master = None
        if stat["status"] == db.DB_REP_MASTER:
            master = [self._spec.host, self._spec.port]
        elif self._master_eid is not None:
            master = list(self._env.repmgr_site_list().get(self._master_eid, (None, None))[:2])
        return {
            "role": roles.get(stat["status"], "none"),
            "master": master,
            "startup_done": bool(stat["startup_complete"]),
            "generation": stat["gen"],
            "events": {EVENTS[what]: count for what, count in self._events.items()},
            "connected": sorted(
                f"{host}:{port}"
                for host, port, status in self._env.repmgr_site_list().values()
                if status == db.DB_REPMGR_CONNECTED
            ),
            "perm_failed": manager["perm_failed"],
            "dropped_connections": manager["connection_drop"],
        }

    def sites(self) -> list[str]:
        """The other sites that it knows."""
        return sorted(f"{host}:{port}" for host, port, _ in self._env.repmgr_site_list().values())

    def membership(self) -> dict[str, str]:
        """Every record of the membership database, in hexadecimal."""
        handle = db.DB(self._env)
        try:
            handle.open(GMDB_FILE, dbname=GMDB_DATABASE, flags=db.DB_RDONLY | db.DB_THREAD)
            return {key.hex(): value.hex() for key, value in handle.items()}
        finally:
            handle.close()

    def set_acks(self, policy: str) -> None:
        """Change the acknowledgement policy."""
        self._env.repmgr_set_ack_policy(getattr(db, f"DB_REPMGR_ACKS_{policy.upper()}"))

    def set_priority(self, priority: int) -> None:
        """Change its priority."""
        self._env.rep_set_priority(priority)

    def remove(self, host: str, port: int) -> None:
        """Take a site out of the group."""
        self._env.repmgr_site(host, port).remove()

    def channel(self, host: str, port: int, requests: int) -> dict[str, list[int]]:
        """Open an application channel to a site, send and ask; return the library's codes."""
        known = self._env.repmgr_site_list().items()
        eid = next(eid for eid, site in known if site[:2] == (host, port))
        channel = Channel(self._env, eid)
        try:
            sent = [channel.send("a message")]
            return {"sent": sent, "asked": [channel.request("a word?") for _ in range(requests)]}
        finally:
            channel.close()

    def close(self) -> None:
        """Close everything in order."""
        self.end_load()
        self._close_keys()
        self._env.log_flush()  # the close of an environment without synchronous commits does not
        self._env.close()


def main() -> None:
    """Run; the one argument is the spec as JSON."""
    site = NativeSite(msgspec.json.decode(sys.argv[1], type=Spec))

    def answer(line: bytes) -> Any:
        request = msgspec.json.decode(line, type=Request)
        return getattr(site, request.do)(**request.arguments)

    child.serve(answer)


if __name__ == "__main__":
    main()
