"""The commands of the client port: one table, and the functions behind it."""

from typing import Final

from ttserver.commands import (
    accounts,
    acks,
    catalog_jobs,
    catalog_tree,
    catalog_volumes,
    connection,
    failover,
    keys,
    ranges,
    server,
    transactions,
)
from ttserver.commands.table import Table

TABLE: Final = Table(
    [
        *connection.COMMANDS,
        *server.COMMANDS,
        *failover.COMMANDS,
        *acks.COMMANDS,
        *keys.COMMANDS,
        *ranges.COMMANDS,
        *transactions.COMMANDS,
        *catalog_tree.COMMANDS,
        *catalog_volumes.COMMANDS,
        *catalog_jobs.COMMANDS,
        *accounts.COMMANDS,
    ]
)
