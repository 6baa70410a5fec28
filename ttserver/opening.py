"""The status of a site whose environment is still being opened, when there is no engine to ask."""

import os

from ttserver import __version__
from ttserver.config import ServerConfig
from ttserver.status import Status


def opening_status(config: ServerConfig) -> Status:
    """Say that the site is starting, with what the configuration knows.

    Args:
        config: everything that was decided about the site.
    """
    return Status(
        state="start-pending",
        serving=False,
        role="none",
        read_only=True,
        site=str(config.local),
        priority=config.db.priority,
        generation=0,
        master=None,
        lsn=(0, 0),
        applied_lsn=(0, 0),
        lag_bytes=None,
        lag_seconds=None,
        sync=None,
        ack_policy=config.db.ack_policy,
        sites=[],
        counters={},
        notice=None,
        ack_note=None,
        pid=os.getpid(),
        version=__version__,
        home=str(config.home.root),
        client_listen=str(config.settings.client.listen),
        recovery_seconds=0.0,
        started="",
    )
