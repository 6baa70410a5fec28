"""Host names and addresses as an operator writes them, checked by their form alone (no look-up)."""

import ipaddress
import re

HOST_BYTES_MAX = 253  # of a name in the DNS

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Names of the loopback interface that /etc/hosts has on every system.
_LOOPBACK_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}
_LOCALHOST_ADDRESSES = {"127.0.0.1", "::1"}


def bare_host(text: str) -> str:
    """Take the brackets off an IPv6 address; anything else comes back as it is."""
    if text.startswith("[") and text.endswith("]") and ":" in text:
        return text[1:-1]
    return text


def host_problem(host: str) -> str | None:
    """Say what is wrong with a host name or address, None when nothing is.

    Args:
        host: a name, an IPv4 address, or an IPv6 address without brackets.
    """
    if not host:
        return "the host is missing"
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return f"{host} is not an IPv6 address"
        return None
    if re.fullmatch(r"[0-9.]+", host):
        # A resolver would take 10.1 or 010.0.0.1 for some address, and not the one that was meant.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return f"{host} is not an IPv4 address"
        return None
    labels = host.removesuffix(".").split(".")
    if len(host) > HOST_BYTES_MAX or not all(map(_LABEL.fullmatch, labels)):
        return f"{host} is neither a host name nor an address"
    return None


def is_loopback(host: str) -> bool:
    """Tell whether a name or address means this machine only."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_localhost(host: str) -> bool:
    """Tell whether this is `localhost` in one of its spellings.

    The other addresses of 127.0.0.0/8 are this machine as well, but each has ports of its own.
    """
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return str(ipaddress.ip_address(host)) in _LOCALHOST_ADDRESSES
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Tell whether an address means every interface (0.0.0.0 or ::), and so names no site."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
