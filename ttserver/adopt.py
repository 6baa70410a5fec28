"""Joining a group that another program made: sync, and see what is there to be served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from replication.journal import Journal
from replication.messages import AckPolicy
from replication.peer import LocalSite
from storage import inventory
from storage.inventory import Inventoried
from ttserver import probe
from ttserver.address import Address
from ttserver.config import ServerConfig
from ttserver.engine import Engine
from ttserver.errors import ConfigurationError, TtserverError
from ttserver.home import Home
from ttserver.open_site import OTHER_FILES

PROBE_TIMEOUT_S: Final = 3.0
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came of it.

    Args:
        master: whom this site follows.
        members: sites of the group, this one included.
        databases: of the application that was there.
    """

    master: str
    members: int
    databases: tuple[Inventoried, ...]

    def keyspace(self, wanted: str | None) -> str | None:
        """Choose the btree to serve: the wanted one, else the only one that can be.

        Returns:
            None when there is nothing to choose, or too much.

        Raises:
            ConfigurationError: the wanted one cannot be served.
        """
        able = [each.file for each in self.databases if not each.obstacle]
        if wanted is None:
            return able[0] if len(able) == 1 else None
        if wanted in able:
            return wanted
        found = {each.file: each.obstacle for each in self.databases}
        raise ConfigurationError(
            f"{wanted} cannot be served: {found.get(wanted, 'there is no such database')}",
            code="KEYSPACE",
            hint=f"these can: {', '.join(able) or 'none'}.",
        )


def must_be_native(local: Address, remote: Address) -> None:
    """See that a native site answers, by the name it has in its group.

    Raises:
        TtserverError: it does not.
    """
    answer = probe.ask_site(
        LocalSite(local.host, local.port, 0, int(AckPolicy.ONE)),
        remote.host,
        remote.port,
        timeout_s=PROBE_TIMEOUT_S,
    )
    if answer.site is None:
        raise TtserverError(
            f"no site answers at {remote}: {answer.problem}",
            code="UNREACHABLE",
            hint="start the native program there; its port is that of its own repmgr_site line.",
        )
    if not answer.site.native:
        raise ConfigurationError(
            f"{remote} is a ttserver site",
            code="USAGE",
            hint=f"join it with `ttserver init --role replicant --remote {remote}` and `run`.",
        )
    if str(answer.site.address) != str(remote):
        raise ConfigurationError(
            f"{remote} calls itself {answer.site.address}",
            code="USAGE",
            hint="name it as its group does: a host and a port are a site's name.",
        )


def must_be_of(config: ServerConfig, local: Address, remote: Address) -> None:
    """See that a HOME that was there before is that of this site, and names the other one.

    Raises:
        ConfigurationError: it is another site's, or belongs to another group.
    """
    named = [site.address for site in config.db.remote_sites]
    if config.local == local and str(remote) in named:
        return
    raise ConfigurationError(
        f"home {config.home.root} is the site {config.local} of a group with"
        f" {', '.join(named) or 'no other site'}",
        code="EXISTS",
        hint="choose another directory with --home DIR.",
    )


async def join(config: ServerConfig, journal: Journal, tell: Callable[[str], None]) -> Adopted:
    """Take part in the group until the copy here is in step, look at it, and stop.

    Args:
        tell: told how it goes, whenever there is something new to say.

    Raises:
        TtserverError, StorageError, ReplicationError: the site could not start.

    *Cancellation:* stops in order; the next try goes on from there.
    """
    engine = Engine(config, journal)
    told = ""
    try:
        await engine.start()
        while (status := engine.status()).state != "running" or status.master is None:
            words = status.why or status.state
            if status.sync is not None:
                words = f"{status.sync.phase}: {status.sync.pages_done} of"
                words += f" {status.sync.pages_total} pages"
            if words != told:
                told = words
                tell(words)
            await asyncio.sleep(LOOK_S)
        env, home = engine.environment.env, config.home.environment
        found = await engine.call(lambda: inventory.take(env, home))
    finally:
        await engine.stop()
    ours = {*OTHER_FILES}
    theirs = tuple(each for each in found if each.file not in ours)
    return Adopted(status.master, status.members or 0, theirs)


def serve_keyspace(home: Home, file: str) -> bool:
    """Have this btree served as the keyspace.

    Returns:
        False when ttserver.toml has a [storage] section of its own: then it is the operator's.
    """
    text = home.toml.read_text(encoding="utf-8") if home.toml.exists() else ""
    if any(line.strip() == "[storage]" for line in text.splitlines()):
        return False
    lines = ["", "[storage]", "# The btree of the adopted application.", f'keyspace = "{file}"', ""]
    home.toml.write_text(text + "\n".join(lines), encoding="utf-8")
    return True
