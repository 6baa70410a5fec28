"""The commands of the client port: one table, and the functions behind it."""

from typing import Final

from ttserver.commands import connection, failover, keys, ranges, server, transactions
from ttserver.commands.table import Table

TABLE: Final = Table(
    [
        *connection.COMMANDS,
        *server.COMMANDS,
        *failover.COMMANDS,
        *keys.COMMANDS,
        *ranges.COMMANDS,
        *transactions.COMMANDS,
    ]
)
