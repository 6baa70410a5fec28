"""Make the HOME of a new site: DB_CONFIG, ttserver.toml, the directories, the administrator.

The administrator's record can only be written where there is a master, so `init` leaves its hash in
a private file that the daemon takes in when it is master for the first time.
"""

import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.users import UserRecord, write_first_user
from ttserver.address import Address, parse_address
from ttserver.errors import ConfigurationError
from ttserver.home import Home
from ttserver.init_text import db_config_text, toml_text

CLIENT_PORT = 5000

# Without 0/O, 1/l/I: a password that is printed once gets copied by hand.
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_CHARACTERS = 20  # 117 bits

Role = Literal["master", "replicant", "witness"]


@dataclass(frozen=True, slots=True)
class InitPlan:
    """What `init` will make, all of it checked.

    Args:
        local: this site.
        remotes: the other sites.
        role: `master` creates the group and the administrator; a `witness` votes and holds no data.
        priority: 0 never becomes master; among equals the highest does.
        others_electable: another site may become master, as far as is known here.
    """

    home: Home
    role: Role
    local: Address
    remotes: tuple[Address, ...]
    priority: int
    others_electable: bool

    @property
    def ack_policy(self) -> str:
        """The policy's name in DB_CONFIG: one that waits for somebody.

        A quorum is of electable sites: without another one it waits for nobody. In a group of two
        it does so in any case.
        """
        quorum = len(self.remotes) > 1 and self.others_electable
        return f"db_repmgr_acks_{'quorum' if quorum else 'one'}"

    @property
    def client_listen(self) -> Address:
        """Where clients will be served."""
        return Address(self.local.host, CLIENT_PORT)


def site_address(text: str, option: str) -> Address:
    """Read the HOST:PORT that names one site.

    Args:
        text: what the operator typed.
        option: what to call it in an error.

    Raises:
        ConfigurationError: it is not the address of one site.
    """
    try:
        address = parse_address(text)
    except ValueError as error:
        raise _bad(f"{option} {error}", "write it like 192.0.2.10:5010") from None
    if address.wildcard:
        raise _bad(
            f"{option} {address} is no address that other sites can reach",
            "write this machine's name or address as the other sites see it",
        )
    return address


def make_plan(
    home: Home,
    role: Role,
    local: str,
    remotes: Sequence[str],
    priority: int | None,
    remote_priority: int | None = None,
) -> InitPlan:
    """Check everything that was asked for, before anything is written.

    Args:
        local: HOST:PORT of this site.
        remotes: HOST:PORT of each other site.
        priority: None for 1 on the master and 0 on a replicant.
        remote_priority: the highest of the other sites; None when nobody said.

    Raises:
        ConfigurationError: the first thing that cannot be right.
    """
    here = site_address(local, "--local")
    others = tuple(site_address(text, "--remote") for text in remotes)
    for number, other in enumerate(others):
        if other == here:
            raise _bad(f"--remote {other} is this site itself", "name the other site there")
        if other in others[:number]:
            raise _bad(f"--remote {other} is given twice", "name each site once")
    if role != "master" and not others:
        raise _bad(f"a {role} has no master to follow", "name the master with --remote HOST:PORT")
    if here.port == CLIENT_PORT:
        raise _bad(
            f"--local {here}: port {CLIENT_PORT} is the clients' port",
            "use port 5010 for replication",
        )
    chosen = priority if priority is not None else int(role == "master")
    if role == "master" and chosen == 0:
        raise _bad(
            "a master cannot have priority 0: that site never becomes master",
            "leave --priority out, or give 1 or more",
        )
    if role == "witness" and chosen:
        raise _bad(
            f"a witness cannot have priority {chosen}: it holds no data to lead with",
            "leave --priority out",
        )
    _refuse_existing(home)
    if remote_priority is not None:
        electable = remote_priority > 0
    else:
        # A replicant that may become master has a master that may, too. And a priority above 1 on a
        # master picks among several; without one the others get what `init` gives a replicant: 0.
        electable = chosen > int(role == "master")
    return InitPlan(home, role, here, others, chosen, electable)


def new_password() -> str:
    """Make a password nobody can guess and a tired person can type."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_PASSWORD_CHARACTERS))


def write(plan: InitPlan, first_user: UserRecord | None) -> list[Path]:
    """Make the HOME; what was made is removed again when a part of it fails.

    Args:
        plan: what `make_plan` checked.
        first_user: the administrator's record with the hash of the password; None on a replicant.

    Returns:
        The files that were written.

    Raises:
        OSError: the disk or the directory's modes do not allow it.
    """
    home = plan.home
    made: list[Path] = []
    try:
        # The environment holds password hashes and all data: nobody else reads it.
        for directory in (home.root, home.environment.parent, home.environment):
            directory.mkdir(mode=0o700, parents=directory == home.root, exist_ok=True)
        home.environment.chmod(0o700)
        if first_user is not None:
            made.append(home.first_user)
            write_first_user(home.first_user, first_user)
        _write_new(home.toml, toml_text(plan).encode(), made, mode=0o640)
        _write_new(home.db_config, db_config_text(plan).encode(), made, mode=0o640)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        # A write that fails does not know its file's name; this is the place the operator gave.
        raise OSError(error.errno, error.strerror, str(home.root)) from error
    return made


def policy_sentences(plan: InitPlan) -> Iterable[str]:
    """Say which acknowledgement policy was chosen, what it protects and what it does not."""
    if plan.role == "witness":
        yield (
            "a witness votes, so that one of two other sites can be elected when the third is lost;"
            " it holds no data, serves no client, and no write waits for it."
        )
        return
    sites = len(plan.remotes) + 1
    if plan.ack_policy.endswith("quorum"):
        yield (
            f"ack policy QUORUM: OK means that most of the {sites} sites have the write, counting "
            "those with priority above 0; whoever is elected after the loss of the master has it."
        )
        yield (
            "If only the master has a priority above 0, this waits for nobody: give --remote-"
            "priority 0 then, or write db_repmgr_acks_one in DB_CONFIG. `ttserver check` tells."
        )
        return
    yield (
        "ack policy ONE: OK means that the write is on disk here and that one other site has it; "
        f"it survives the loss of {'either machine' if sites == 2 else 'any one machine'}."
    )
    if sites > 2:
        yield (
            "The other sites are taken to have priority 0: none becomes master by itself, "
            "`ttserver promote` makes one. If they may, give --remote-priority 1: the policy is "
            "QUORUM then."
        )
    yield (
        "While no other site is connected, a write is stored here and answered PERMFAILED, so that "
        "nobody mistakes one copy for two. A group of this site alone answers OK."
    )


def _write_new(path: Path, data: bytes, made: list[Path], *, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    made.append(path)
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _refuse_existing(home: Home) -> None:
    for path in (home.db_config, home.environment / "DB_CONFIG", home.toml, home.first_user):
        if path.exists():
            raise ConfigurationError(
                f"home {home.root} already holds a site: {path} exists",
                code="EXISTS",
                hint="edit that file, or choose another directory with --home DIR",
            )


def _bad(text: str, hint: str) -> ConfigurationError:
    return ConfigurationError(text, code="USAGE", hint=hint)
