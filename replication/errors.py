"""The errors of the replication package.

    ReplicationError            facts, a stable `code`, one `hint`
    +-- RemoteProtocolError     the other side sent what repmgr protocol 4 does not allow
    +-- LocalProtocolError      this program asked for what the state does not allow: our bug
    +-- MembershipError         a change or a record of the site list that breaks its rules

Any other exception out of a sans-I/O module is a bug of that module.  The text names its subject
first; who prints it adds a line `HINT: ` with the hint.
"""

from __future__ import annotations


class ReplicationError(Exception):
    """Carry one failure of replication with its code, its facts and one thing to do.

    Args:
        text: one line, subject first, lower case, numbers with their units.
        code: stable name for programs and tests (`frame_too_large`).
        hint: one thing the operator can do about it.
        **facts: the numbers and names the text was made of.
    """

    def __init__(self, text: str, *, code: str, hint: str, **facts: object) -> None:
        super().__init__(text)
        self.code = code
        self.hint = hint
        self.facts = facts


class RemoteProtocolError(ReplicationError):
    """Report bytes of the other side that protocol 4 does not allow; the link must be closed."""


class LocalProtocolError(ReplicationError):
    """Report a call that the state of a link does not allow; a bug of the caller."""


class MembershipError(ReplicationError):
    """Report a site list, or a change to one, that would break a member of the group."""
