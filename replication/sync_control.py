"""What an operator can do about the sync of a replicant (no input or output)."""

from replication.core import Core
from replication.errors import ReplicationError


def begin_sync(core: Core, now_s: float) -> str:
    """Begin the sync that waits, now.

    Returns:
        What was done, in words.

    Raises:
        ReplicationError: no sync waits.
    """
    catch_up = core.catch_up
    if catch_up.delayed_until_s is not None:
        catch_up.sync_now(now_s)
        return f"this site syncs with {core.master or 'the next master'} now"
    if catch_up.tries.given_up is not None:
        catch_up.try_again(now_s)
        return f"this site takes a copy from {core.master or 'the next master'} again"
    if core.is_master:
        why = "this site is the master"
    elif core.syncing:
        why = "it is under way"
    elif core.startup_done:
        why = f"this site is in step with {core.master or 'its last master'}"
    else:
        why = core.why or "this site has no master to sync with"
    raise ReplicationError(
        f"no sync waits to be begun: {why}",
        code="no_sync_waits",
        hint="see what the site does: ttserver status",
    )
