"""What the replication manager is doing, in one word (no input or output)."""

from enum import Enum


class Phase(Enum):
    """See `replication.core` for how one leads to another."""

    PROBING = "asking the other sites what they hold"
    WAITING = "waiting"
    JOINING = "asking to be taken into the group"
    FOLLOWING = "following"
    TAKING_OVER = "becoming master"
    MASTER = "master"
    HANDING_OVER = "handing over"
    REMOVED = "removed from the group"
