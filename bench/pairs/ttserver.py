"""Two sites as `ttserver init` makes them for a group of two: ack policy ONE, flushed on both."""

from __future__ import annotations

from bench.pairs.base import Setting, Work
from bench.pairs.resp import RespPair
from bench.trio import HOST, PASSWORD, RespConnection
from storage.users import ADMINISTRATOR, new_record
from ttserver import __version__
from ttserver.address import Address
from ttserver.demo.ports import reserved
from ttserver.demo.site import SiteProcess
from ttserver.init import Role, make_plan, write

MIB = 2**20
ROLES: tuple[Role, Role] = ("master", "replicant")


class TtserverPair(RespPair):
    """Ours."""

    name = "ttserver"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._sites = [
            SiteProcess(role, setting.directory / role, setting.directory / f"{role}.log")
            for role in ROLES
        ]
        self._clients: list[Address] = []

    @property
    def version(self) -> str:
        return __version__

    def open(self) -> None:
        replication = [self.held.enter_context(reserved(HOST)) for _ in ROLES]
        self._clients = [self.held.enter_context(reserved(HOST)) for _ in ROLES]
        administrator = new_record(ADMINISTRATOR, PASSWORD, "administrator")
        cache = self.setting.cache_mib
        for at, (role, site) in enumerate(zip(ROLES, self._sites, strict=True)):
            others = [str(replication[1 - at])]
            plan = make_plan(site.home, role, str(replication[at]), others, 1 - at)
            write(plan, None if at else administrator)
            with site.home.db_config.open("a", encoding="utf-8") as config:
                config.write(f"set_cachesize {cache // 1024} {cache % 1024 * MIB} 1\n")
            site.home.toml.write_text(
                f'[client]\nlisten = "{self._clients[at]}"\n'
                f"max_clients = {self.setting.clients_max}\n",
                encoding="utf-8",
            )
            self.held.callback(site.stop)
            site.start()
            site.wait_running()
        self.fill()

    def pids(self) -> tuple[int, int]:
        master, replicant = (site.process for site in self._sites)
        assert master is not None, "it was started"
        assert replicant is not None, "it was started"
        return master.pid, replicant.pid

    def address(self, work: Work) -> Address:
        return self._clients[0 if work.startswith("set") else 1]

    def connect(self, address: Address) -> RespConnection:
        return RespConnection(address)

    def kind(self, work: Work) -> str:
        # OK to a SET says that the other site has it; nothing more has to be asked for.
        return "set" if work == "set-acked" else super().kind(work)

    def setup(self, work: Work) -> list[str]:
        logon = [f"AUTH {ADMINISTRATOR} {PASSWORD}"]
        return [*logon, "ACKS NONE"] if work == "set" else logon
