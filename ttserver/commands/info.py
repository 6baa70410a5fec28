"""INFO and ROLE: this site in the shapes that Redis's clients read.

An LSN `(file, offset)` becomes one number, `file * 2**32 + offset`: it only ever grows, as Redis's
replication offset does.

Source: Redis, `INFO` and `ROLE`; redis-py's `parse_info`.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ttserver.commands.context import Client, Server, SiteStatus, Status
from ttserver.replies import Value

REDIS_VERSION: Final = "7.2.0"  # the command set that client libraries may expect
Facts = dict[str, object]


def offset(lsn: Sequence[int] | None) -> int:
    """One growing number for an LSN."""
    return 0 if lsn is None else (lsn[0] << 32) | lsn[1]


def split_address(address: str | None) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host may stand in brackets."""
    if not address:
        return "", 0
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


def role(client: Client, _args: Sequence[bytes]) -> Value:
    """ROLE."""
    engine = client.server.engine
    status: Status = engine.status()
    if status.role == "master":
        sites: list[Value] = []
        for site in _followers(status):
            host, port = split_address(site.site)
            sites.append([host, str(port), str(offset(site.acked_lsn))])
        return [b"master", offset(status.lsn), sites]
    host, port = split_address(engine.master_client_address or status.master)
    return [b"slave", host, port, _link_state(status), offset(status.applied_lsn)]


def _followers(status: Status) -> list[SiteStatus]:
    return [
        site
        for site in status.sites
        if site.site != status.site and site.role != "master" and site.status == "connected"
    ]


def _link_state(status: Status) -> str:
    if status.sync is not None:
        return "sync"
    return "connected" if status.master is not None else "connect"


def _server(server: Server) -> Facts:
    uptime_s = int(server.now() - server.started)
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "standalone",
        "ttserver_version": server.version,
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "arch_bits": 64,
        "python_version": platform.python_version(),
        "process_id": os.getpid(),
        "tcp_port": server.port,
        "server_time_usec": int(server.wall() * 1e6),
        "uptime_in_seconds": uptime_s,
        "uptime_in_days": uptime_s // 86400,
    }


def _clients(server: Server) -> Facts:
    return {
        "connected_clients": len(server.clients),
        "maxclients": server.clients_max,
        "watching_clients": sum(one.watch is not None for one in server.clients.values()),
        "scan_cursors": len(server.cursors),
    }


def _memory(_server: Server) -> Facts:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = _statm()
    return {
        "used_memory_rss": peak if pages is None else pages * resource.getpagesize(),
        "used_memory_peak": peak,
        "maxmemory": 0,
        "maxmemory_policy": "noeviction",
    }


def _statm() -> int | None:
    """Resident pages now; only Linux tells."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _persistence(server: Server) -> Facts:
    status: Status = server.engine.status()
    return {
        "loading": int(not status.serving),
        "aof_enabled": 1,
        "log_end_lsn": f"{status.lsn[0]}:{status.lsn[1]}",
    }


def _stats(server: Server) -> Facts:
    totals = server.totals
    clients = server.clients.values()
    return {
        "total_connections_received": totals.connections,
        "total_commands_processed": totals.commands + sum(one.commands for one in clients),
        "total_writes_processed": totals.writes + sum(one.writes for one in clients),
        "total_error_replies": totals.errors + sum(one.errors for one in clients),
        "total_net_input_bytes": totals.bytes_in + sum(one.bytes_in for one in clients),
        "total_net_output_bytes": totals.bytes_out + sum(one.bytes_out for one in clients),
        "rejected_connections": totals.refused,
        "refused_logons": totals.logons_refused,
    }


def _replication(server: Server) -> Facts:
    status: Status = server.engine.status()
    master = status.role == "master"
    followers = _followers(status) if master else []
    facts: Facts = {"role": "master" if master else "slave"}
    if not master:
        host, port = split_address(server.engine.master_client_address or status.master)
        up = status.master is not None
        facts |= {
            "master_host": host,
            "master_port": port,
            "master_link_status": "up" if up else "down",
            "master_last_io_seconds_ago": _last_contact(status),
            "master_sync_in_progress": int(status.sync is not None),
            "slave_repl_offset": offset(status.applied_lsn),
            "slave_read_only": 1,
        }
    facts["connected_slaves"] = len(followers)
    for number, site in enumerate(followers):
        host, port = split_address(site.site)
        seen_s = site.last_contact_seconds
        facts[f"slave{number}"] = (
            f"ip={host},port={port},state=online,offset={offset(site.acked_lsn)},"
            f"lag={0 if seen_s is None else int(seen_s)}"
        )
    facts |= {
        "master_repl_offset": offset(status.lsn if master else status.applied_lsn),
        "ttserver_role": status.role,
        "ttserver_state": status.state,
        "ttserver_site": status.site,
        "ttserver_master": status.master or "",
        "ttserver_generation": status.generation,
        "ttserver_lag_bytes": _known(status.lag_bytes),
        "ttserver_lag_seconds": _known(status.lag_seconds),
    }
    facts["ttserver_ack_policy"] = server.engine.ack_policy
    if status.ack_note:
        facts["ttserver_ack_note"] = status.ack_note
    if server.engine.notice:
        facts["ttserver_notice"] = server.engine.notice
    return facts


def _known(number: float | None) -> object:
    return -1 if number is None else number


def _last_contact(status: Status) -> int:
    for site in status.sites:
        if site.site == status.master and site.last_contact_seconds is not None:
            return int(site.last_contact_seconds)
    return -1


_SECTIONS: Final[Mapping[str, Callable[[Server], Facts]]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
}
KEYSPACE: Final = "keyspace"
_ALL: Final = frozenset({"all", "everything", "default"})


def wanted_sections(args: Sequence[bytes]) -> list[str]:
    """The sections an INFO asks for, in their order; unknown names ask for nothing.

    Counting the keys reads the whole database after each change, so only who asks for
    `keyspace` or `everything` gets that section.
    """
    words = {word.decode("latin-1").lower() for word in args[1:]} or {"default"}
    chosen = [name for name in _SECTIONS if name in words or words & _ALL]
    if KEYSPACE in words or "everything" in words:
        chosen.append(KEYSPACE)
    return chosen


def info_text(server: Server, sections: Sequence[str], keys: int | None) -> bytes:
    """Write the sections out.

    Args:
        keys: how many there are; None when `keyspace` is not among the sections.
    """
    parts: list[str] = []
    for name in sections:
        if name == KEYSPACE:
            facts: Facts = {"db0": f"keys={keys},expires=0,avg_ttl=0"} if keys else {}
        else:
            facts = _SECTIONS[name](server)
        lines = "".join(f"{key}:{_one_line(value)}\r\n" for key, value in facts.items())
        parts.append(f"# {name.capitalize()}\r\n{lines}")
    return "\r\n".join(parts).encode()


def _one_line(value: object) -> str:
    return str(value).replace("\r", " ").replace("\n", " ")
