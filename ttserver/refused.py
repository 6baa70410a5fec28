"""What a site answers to what it cannot do now: one sentence, a code, one thing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.phase import Phase
from ttserver.errors import TtserverError

if TYPE_CHECKING:
    from ttserver.engine import Engine


class Refused(TtserverError):
    """A request this site cannot serve as it stands; `code` is the reply's first word."""

    default_code = "TRYAGAIN"


def write_refused(engine: Engine) -> Refused:
    """Say why a site that takes no writes takes none."""
    if engine.stopping:
        return Refused("write refused: this site is stopping", hint="use another site.")
    if engine.config.settings.replication.witness:
        return _witness(engine)
    if not engine.serving:
        return loading(engine)
    if engine.manager is not None and engine.manager.core.is_master:
        cut_off = engine.manager.cut_off()
        if cut_off is not None:
            return Refused(
                f"write refused: {cut_off}",
                hint="use a site that the others can reach, or mend the network between them.",
            )
    if engine.manager is None or engine.manager.core.is_master:
        why = f" ({engine.failure})" if engine.failure is not None else ""
        return Refused(f"write refused: this site is just becoming master{why}", hint="try again.")
    master = engine.master_client_address or engine.master
    if engine.manager.core.phase is Phase.REMOVED:
        return Refused(
            "write refused: this site was removed from the group",
            code="READONLY",
            hint="connect to a site of the group for updates.",
        )
    if master is None:
        return Refused(
            "write refused: this site is a replicant and no master is known now",
            code="READONLY",
            hint="see `ttserver status` for what it waits for.",
        )
    return Refused(
        f"write refused: this site is a replicant (master is {master},"
        f" generation {engine.generation})",
        code="READONLY",
        hint=f"connect to {master} for updates.",
    )


def too_few_acks(connected: int, needed: int) -> Refused:
    """Say that too few sites are connected to accept a write at all."""
    return Refused(
        f"write refused: {connected} sites that could acknowledge are connected,"
        f" {needed} are needed (replication.min_acks_to_accept)",
        code="NOREPLICAS",
        hint="start the replicants, or lower min_acks_to_accept in ttserver.toml.",
    )


def loading(engine: Engine) -> Refused:
    """Say why reads are not answered."""
    if engine.stopping:
        return Refused("this site is stopping", hint="use another site.")
    if engine.config.settings.replication.witness:
        return _witness(engine)
    if not engine.is_open:
        failure = f": {engine.failure}" if engine.failure is not None else ""
        text = f"this site is opening its database{failure}"
    else:
        why = engine.manager.core.why if engine.manager is not None else None
        text = f"this site has no complete copy of the database yet ({why or 'it is starting'})"
    return Refused(text, code="LOADING", hint="see `ttserver status` for how far it is.")


def _witness(engine: Engine) -> Refused:
    """Say that this site has nothing to read and takes nothing."""
    master = engine.master_client_address or engine.master
    return Refused(
        "this site is a witness: it votes, holds no data and knows no users"
        f" (master is {master or 'not known now'})",
        code="NODATA",
        hint=f"connect to {master}." if master else "connect to a site that holds the data.",
    )


def not_fresh(lease_s: float) -> Refused:
    """Say that another site might be master, and have newer data."""
    return Refused(
        f"read refused: for {lease_s:g} s no majority said that this site is still the master"
        " (replication.lease_s)",
        hint="try again, or use a site that the others can reach.",
    )


def too_old(stale_s: float | None, limit_s: float) -> Refused:
    """Say that the data here is older than the operator allows."""
    age = "never" if stale_s is None else f"{stale_s:.1f} s ago"
    return Refused(
        f"read refused: the master was last heard {age}, the limit is {limit_s:g} s"
        " (client.max_stale_s)",
        code="MASTERDOWN",
        hint="see `ttserver status` for why there is no master.",
    )
