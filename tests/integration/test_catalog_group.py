"""The catalog in a group: it replicates like everything else, and only the master changes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from storage.groups import GroupRecord
from tests.support.catalog_client import add_users, flat, tree
from tests.support.engine import SmallAuth
from tests.support.engines import EngineSite, EngineSites, fast, sites
from tests.support.environments import soon
from tests.support.wire import Error, Wire
from ttserver.listener import Listener

__all__ = ["fast", "sites"]

ACKS_ONE = "repmgr_set_ack_policy db_repmgr_acks_one"
ONE = "US04.LTO.000001L6"


@asynccontextmanager
async def client_of(site: EngineSite, user: str = "tapemaster") -> AsyncIterator[Wire]:
    """A client of a site, logged on."""
    auth = SmallAuth()
    auth.roles["read"] = "user"
    listener = Listener(site.engine, auth)
    try:
        yield await Wire(listener).login(user)
    finally:
        await listener.stop()


async def test_a_replicant_has_the_catalog_and_refuses_to_change_it(sites: EngineSites) -> None:
    master, replicant = sites.group(2, lines=(ACKS_ONE,))
    await master.start()
    await add_users(master.engine)
    async with client_of(master) as there:
        await tree(there)
        assert flat(await there.call("VOLUME.ADD", ONE))["flags"] == "C"
        # Taken over as a whole: internal initialisation.
        await replicant.start()
        await soon("it is connected", lambda: master.engine.status().sites[0].acked_lsn)
        await soon("in step", lambda: replicant.engine.lsn >= master.engine.lsn)
        async with client_of(replicant) as here, client_of(replicant, "read") as reader:
            for wire in (here, reader):
                assert flat(await wire.call("VOLUME.GET", ONE))["flags"] == "C"
            # Record by record: with one acknowledgement it is there when the move is answered.
            assert flat(await there.call("VOLUME.MOVE", ONE, "OFFS"))["flags"] == "MC"
            assert flat(await here.call("VOLUME.GET", ONE))["flags"] == "MC"
            _, rows = flat(await reader.call("VOLUME.LIST", 0, "TO", "OFFS"))
            assert [row["name"] for row in rows] == [ONE]
            _, rows = flat(await here.call("VOLUME.HISTORY", ONE))
            assert [row["what"] for row in rows] == ["add", "move"]
            assert flat(await here.call("LIBRARY.BALANCE", "US04.LTO.OFFS"))["incoming"] == 1
            for line in (f"VOLUME.CONFIRM {ONE}", "CUSTOMER.ADD X", "EXPIRE ON *"):
                refused = await here.call(*line.split())
                assert isinstance(refused, Error)
                assert refused.startswith("READONLY write refused: this site is a replicant")
                assert str(master.address) in refused
            # A right that is taken away on the master is gone here, too.
            groups = master.engine.groups
            await master.engine.write(
                lambda txn: groups.put(txn, GroupRecord(name="read"), new=False)
            )
            refused = await reader.call("VOLUME.GET", ONE)
            assert refused == "NOPERM user read lacks the right READ for customer US04"
