"""The part of `ttserver check` that needs the network: ports, names, the other sites, acks."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from replication.ack_words import advise
from replication.acks import SiteAck
from replication.messages import AckPolicy
from replication.peer import LocalSite
from storage.dbconfig import SiteLine
from storage.hosts import is_loopback
from ttserver import probe
from ttserver.address import Address, parse_address
from ttserver.check_findings import Finding, fail, ok, skip, warn
from ttserver.config import ServerConfig
from ttserver.summary import lsn_text

PROBE_TIMEOUT_S = 2.0
# Ports that operators of this protocol are used to; one is tried when the other is closed.
OTHER_PORT = {5010: 5100, 5100: 5010}

Status = dict[str, Any]


def check_network(config: ServerConfig, status: Status | None) -> Iterator[Finding]:
    """Look at everything between this site, its clients and the other sites.

    Args:
        config: the site's configuration.
        status: what its running daemon says, None when none runs.
    """
    yield from _check_ports(config, status)
    yield _check_clients(_client_listen(config, status))
    for site in {site.host: site for site in reversed(config.db.sites)}.values():
        yield _check_name(site, config)
    answers: dict[str, probe.Answer] = {}
    for site in config.db.remote_sites:
        answer = probe.ask_site(
            LocalSite(
                config.local.host,
                config.local.port,
                config.db.priority,
                config.db.ack_policy_number,
            ),
            site.host,
            site.port,
            timeout_s=PROBE_TIMEOUT_S,
        )
        answers[site.address] = answer
        yield _check_remote(site, answer)
    members = _members(status, answers)
    yield from _check_acks(config, members)
    yield from _check_least(config, members)
    yield skip("clocks", "sites do not tell each other the time; keep NTP running on all of them")


# -- ports and names


def _check_ports(config: ServerConfig, status: Status | None) -> Iterator[Finding]:
    for topic, where in (
        ("client port", _client_listen(config, status)),
        ("site port", config.replication_listen),
    ):
        yield _check_port(topic, where, ours=status is not None)


def _client_listen(config: ServerConfig, status: Status | None) -> Address:
    """Give the address the running daemon has, which its command line may have named."""
    if status is None:
        return config.settings.client.listen
    return parse_address(status["client_listen"], port_min=0)


def _check_port(topic: str, where: Address, *, ours: bool) -> Finding:
    problem = probe.cannot_listen(where.host, where.port)
    if problem is None:
        return ok(topic, f"{where} is free")
    if problem.errno == errno.EADDRINUSE and ours:
        return ok(topic, f"{where} is held by our own daemon")
    words = (problem.strerror or str(problem)).lower()
    return fail(topic, f"{where}: {words}", probe.listen_hint(problem, where.port))


def _check_clients(listen: Address) -> Finding:
    if is_loopback(listen.host):
        return warn(
            "clients",
            f"served on {listen} only, which other machines cannot reach",
            f'write listen = "HOST:{listen.port}" under [client] in ttserver.toml',
        )
    return ok("clients", f"served on {listen}")


def _check_name(site: SiteLine, config: ServerConfig) -> Finding:
    try:
        found = [address for _, address in probe.addresses_of(site.host, site.port)]
    except OSError as error:
        return fail(
            "names",
            f"{site.host} does not resolve: {error.strerror or error}",
            "write an address, or put the name in the DNS or /etc/hosts",
        )
    text = f"{site.host} is {', '.join(found)}" + (", all are tried" if len(found) > 1 else "")
    if site.local and is_loopback(found[0]) and not is_loopback(site.host):
        far = [other.host for other in config.db.remote_sites if not is_loopback(other.host)]
        if far:
            return warn(
                "names",
                f"{text}: this site would listen where {far[0]} cannot reach it",
                "give the name its real address in /etc/hosts",
            )
    return ok("names", text)


# -- the other sites


def _check_remote(site: SiteLine, answer: probe.Answer) -> Finding:
    if not answer.reached:
        return _unreachable(site, answer.problem)
    if answer.site is None:
        return fail(
            "other sites",
            f"{site.address} answers, but is no site: {answer.problem}",
            "name its replication port there (5010), not the clients' (5000)",
        )
    if str(answer.site.address) != site.address:
        return fail(
            "other sites",
            f"{site.address} calls itself {answer.site.address}",
            "use one spelling of each site's address in every DB_CONFIG of the group",
        )
    return ok("other sites", f"{site.address}: {_described(answer)}")


def _described(answer: probe.Answer) -> str:
    assert answer.site is not None
    text = "native repmgr" if answer.site.native else "ttserver"
    text += ", protocol 4, " + ("may become master" if answer.site.electable else "never master")
    if (standing := answer.standing) is not None:
        text += f", generation {standing.generation}, log end {lsn_text(standing.last_lsn)}"
        text += f", master {standing.master}" if standing.master is not None else ", no master"
    return text


def _unreachable(site: SiteLine, problem: str | None) -> Finding:
    other = OTHER_PORT.get(site.port)
    if other is not None and probe.accepts(site.host, other, timeout_s=PROBE_TIMEOUT_S):
        return warn(
            "other sites",
            f"{site.address} does not answer ({problem}), but port {other} of that host does",
            f"write port {other} in that repmgr_site line if the site listens there",
        )
    return warn(
        "other sites",
        f"{site.address} does not answer: {problem}",
        f"start the site there, and let port {site.port} through the firewalls both ways",
    )


# -- acknowledgements


def _members(status: Status | None, answers: dict[str, probe.Answer]) -> list[SiteAck]:
    """List the other members; the running daemon knows them better than the configuration."""
    if status is not None and status["sites"]:
        known = {str(site["site"]): site["electable"] for site in status["sites"]}
    else:
        known = {
            name: answer.site.electable if answer.site is not None else None
            for name, answer in answers.items()
        }
    return [
        SiteAck(number, electable, connected=True, acked=None, name=name)
        for number, (name, electable) in enumerate(known.items(), start=1)
    ]


def _check_acks(config: ServerConfig, members: list[SiteAck]) -> Iterator[Finding]:
    policy = AckPolicy(config.db.ack_policy_number)
    strict = config.db.rep_config.two_site_strict
    if not members:
        yield ok("ack policy", f"{policy.name}; no other site is known, so a write waits for none")
        return
    cut_off = [replace(member, connected=False) for member in members]
    for sites in (members, cut_off):
        advice = advise(policy, sites, two_site_strict=strict)
        if advice is not None:
            yield warn("ack policy", advice.text, advice.hint)
            return
    yield ok("ack policy", f"{policy.name} with {len(members)} other site{'s'[: len(members) > 1]}")


def _check_least(config: ServerConfig, members: list[SiteAck]) -> Iterator[Finding]:
    """Compare what a write needs before it is accepted with the sites there are."""
    needed = config.settings.replication.min_acks_to_accept
    if needed > len(members):
        yield warn(
            "ack policy",
            f"replication.min_acks_to_accept = {needed} cannot be met by {len(members)} other"
            f" site{'s'[: len(members) != 1]}: every write is refused with NOREPLICAS",
            f"set it to at most {len(members)} in ttserver.toml, or add sites",
        )
