"""The demo's directory: two sites and their password.

DIR/master  DIR/replicant      the two HOMEs
DIR/master.log ...             what the daemons write to standard error
DIR/password                   of the administrator, readable by its owner only
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from storage.users import ADMINISTRATOR
from ttserver.address import Address
from ttserver.config import load
from ttserver.demo.ports import CLIENT_PORT, REPLICATION_PORT, free, reserved
from ttserver.demo.site import SiteProcess
from ttserver.init import new_password
from ttserver.server_string import ServerString
from ttserver.tt.session import Session

# Each site has the product's own ports, as if each had its own machine.
HOSTS = {"master": "127.0.0.1", "replicant": "127.0.0.2"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one site is reached.

    Args:
        replication: its identity in the group.
        clients: where it serves clients.
    """

    replication: Address
    clients: Address


class Group:
    """A master and a replicant in one directory.

    Args:
        directory: made when it does not exist; what it holds of an earlier run is used again.
        kernel_ports: let the kernel choose all ports, so that any number of groups can run.

    Attributes:
        password: the administrator's, once `prepare` was called.
        fresh: neither site was there before.
    """

    def __init__(self, directory: Path, *, kernel_ports: bool = False) -> None:
        self.directory = directory.absolute()
        self.master, self.replicant = (
            SiteProcess(name, self.directory / name, self.directory / f"{name}.log")
            for name in HOSTS
        )
        self.password = ""
        self.fresh = False
        self._kernel_ports = kernel_ports
        self._held = ExitStack()
        self._places: dict[str, Place] = {}

    @property
    def sites(self) -> tuple[SiteProcess, SiteProcess]:
        """Both, the master first."""
        return self.master, self.replicant

    def clients(self, site: SiteProcess) -> Address:
        """Where a site serves clients."""
        return self._places[site.name].clients

    def replication(self, site: SiteProcess) -> Address:
        """The address of a site in the group."""
        return self._places[site.name].replication

    def redis_cli(self, site: SiteProcess) -> str:
        """Give the command that a person can paste; $REDISCLI_AUTH has to hold the password."""
        clients = self.clients(site)
        return f"redis-cli -h {clients.host} -p {clients.port} --user {ADMINISTRATOR}"

    def session(self, site: SiteProcess) -> Session:
        """Make a client of a site; it logs on when something is asked first."""
        clients = self.clients(site)
        server = ServerString(ADMINISTRATOR, self.password, clients.host, clients.port)
        return Session([server], ask=lambda _: self.password, tell=lambda _: None)

    # -- making it

    def prepare(self) -> str:
        """Make the HOMEs that are not there with `ttserver init`.

        Returns:
            What was done, in a few words.

        Raises:
            SiteError: `init` refused.
            TtserverError, StorageError: a HOME that is there has a bad configuration.
            OSError: the directory can't be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        missing = [site for site in self.sites if not site.home.db_config.exists()]
        self.fresh = len(missing) == len(self.sites)
        self._places = self._find_places()
        self._find_password()
        for site in missing:
            (other,) = (one for one in self.sites if one is not site)
            self._init(site, other)
        names = " and ".join(site.name for site in missing)
        where = ", ".join(f"{site.name} {self.replication(site)}" for site in self.sites)
        return f"{where} ({f'made {names}' if names else 'as an earlier run left them'})"

    def _init(self, site: SiteProcess, other: SiteProcess) -> None:
        is_master = site is self.master
        site.must(
            *("init", "--role", site.name, "--local", str(self.replication(site))),
            *("--remote", str(self.replication(other))),
            *(["--password-stdin"] if is_master else []),
            stdin=f"{self.password}\n" if is_master else "",
        )
        # `init` takes port 5000 for granted.
        usual, chosen = Address(self.clients(site).host, CLIENT_PORT), self.clients(site)
        text = site.home.toml.read_text()
        site.home.toml.write_text(text.replace(f'listen = "{usual}"', f'listen = "{chosen}"'))

    def _find_places(self) -> dict[str, Place]:
        """Take what the HOMEs say; choose for those that are not there."""
        places: dict[str, Place] = {}
        for site, other in (self.sites, self.sites[::-1]):
            if not site.home.db_config.exists():
                continue
            config = load(site.home)
            places[site.name] = Place(config.local, config.settings.client.listen)
            if not other.home.db_config.exists():
                remote = config.db.remote_sites[0]
                usual = Address(remote.host, CLIENT_PORT)
                alone = remote.port == REPLICATION_PORT and free(usual)
                places[other.name] = Place(
                    Address(remote.host, remote.port),
                    usual if alone else self._kernels(remote.host),
                )
        return places or self._choose_places()

    def _choose_places(self) -> dict[str, Place]:
        """Take the product's own ports; others on one address where those are taken."""
        usual = {
            name: Place(Address(host, REPLICATION_PORT), Address(host, CLIENT_PORT))
            for name, host in HOSTS.items()
        }
        wanted = [a for place in usual.values() for a in (place.replication, place.clients)]
        if not self._kernel_ports and free(*wanted):
            return usual
        host = HOSTS["master"]
        return {name: Place(self._kernels(host), self._kernels(host)) for name in HOSTS}

    def _kernels(self, host: str) -> Address:
        return self._held.enter_context(reserved(host))

    def _find_password(self) -> None:
        path = self.directory / "password"
        if not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as out:
                out.write(f"{new_password()}\n")
        self.password = path.read_text().strip()

    # -- ending it

    def stop(self) -> list[int | None]:
        """Stop the replicant, then the master; give their exit statuses in that order."""
        statuses = [site.stop() for site in (self.replicant, self.master)]
        self._held.close()
        return statuses
