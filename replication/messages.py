"""The frozen numbers of repmgr protocol 4 and ttserver's additions, all in one place.

A number here never changes its meaning: sites of other versions, and unmodified native sites, read
it.  ttserver's own messages travel as OWN codes from 0x100 and only between two sites that both set
`ParamFlag.TTSERVER_SITE`; a native site would close the link on such a code.

    frame types   MessageType    byte 0 of every frame
    OWN codes     OwnCode        word 2 of a frame of type OWN
    record types  RepType        offset 16 of a REP_MESSAGE's control part, made by the library

Source: the library's repmgr message formats, version 4 (Berkeley DB 5.2 and 5.3).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

PROTOCOL_VERSION: Final = 4
"""The one version of the repmgr protocol spoken here; below 4 there is no group membership."""

GMDB_FORMAT: Final = 1
"""Layout version of the membership database's records."""

EID_BROADCAST: Final = -1
"""The library's address for "every site" in its send callback."""

ERROR_NO_SERVER: Final = 30989
"""What RESP_ERROR says when nobody serves application channels (the library's DB_NOSERVER)."""

LOG_RECORD_MEMBERSHIP: Final = 200
"""Type of the log record by which a native master announces a membership change."""


class MessageType(IntEnum):
    """Byte 0 of every frame."""

    PERMLSN = 1
    HANDSHAKE = 2
    REP_MESSAGE = 3
    HEARTBEAT = 4
    APP_MESSAGE = 5
    APP_RESPONSE = 6
    RESP_ERROR = 7
    OWN = 8


class OwnCode(IntEnum):
    """Word 2 of an OWN frame: what its body is.

    one-shot = on a connection made for one request; ready = on a link between two sites.
    """

    CONNECT_REJECT = 1  # ready, right after the rejected parameters
    GM_FAILURE = 2  # answer, one-shot, no body
    GM_FORWARD = 3  # answer, one-shot: ask that site instead
    JOIN_REQUEST = 4  # request, one-shot
    JOIN_SUCCESS = 5  # answer, one-shot: membership list
    PARM_REFRESH = 6  # ready: ack policy and electability changed
    REJOIN = 7  # never on the wire: native queue code
    REMOVE_REQUEST = 8  # request, one-shot
    REMOVE_SUCCESS = 9  # answer, one-shot, no body
    RESOLVE_LIMBO = 10  # never on the wire: native queue code
    SHARING = 11  # ready: membership list

    # ttserver sites among themselves
    SITE_QUERY = 0x100  # one-shot request or ready: what do you hold?
    SITE_STANDING = 0x101  # its answer
    STABLE_LSN = 0x102  # ready, master to replicants: highest LSN that was answered OK
    # Master to replicants, ready: do you follow me, and call no election for so long? Its answer.
    ROUND = 0x110
    ROUND_ANSWER = 0x111
    GENERATIONS = 0x160  # ready, master to replicants: where each generation begins
    INVITE = 0x120  # one-shot request: ask to be taken in; its answer is SITE_STANDING
    HANDOVER_ASK = 0x121  # ready, master to target: would you take over? (see `handover`)
    HANDOVER_READY = 0x122  # ready, its answer: yes
    HANDOVER_REFUSED = 0x123  # ready, its answer, or that to HANDOVER_TAKE: no, with the reason
    HANDOVER_TAKE = 0x124  # ready, to the target: this site stepped down, take over

    ERRAND = 0x130  # ready, to the master: do this for a replicant (see `replication.errands`)
    ERRAND_DONE = 0x131  # ready, its answer

    # ready, master to a replicant and back: are the two identical? See `replication.compare`
    COMPARE_BEGIN = 0x150
    COMPARE_PREPARE = 0x151
    COMPARE_ANSWER = 0x152  # to either
    COMPARE_AT = 0x153
    COMPARE_DIGEST = 0x154  # its answer
    COMPARE_END = 0x155
    SITE_CLOCK = 0x15F  # ready: what the wall clock of the site reads


TTSERVER_CODES_FROM: Final = 0x100
"""OWN codes from here on belong to ttserver."""


class RepType(IntEnum):
    """Record types of the library's replication messages (control part, offset 16)."""

    ALIVE = 1
    ALIVE_REQ = 2
    ALL_REQ = 3
    BULK_LOG = 4
    BULK_PAGE = 5
    DUPMASTER = 6
    FILE = 7
    FILE_FAIL = 8
    FILE_REQ = 9
    LEASE_GRANT = 10
    LOG = 11
    LOG_MORE = 12
    LOG_REQ = 13
    MASTER_REQ = 14
    NEWCLIENT = 15
    NEWFILE = 16
    NEWMASTER = 17
    NEWSITE = 18
    PAGE = 19
    PAGE_FAIL = 20
    PAGE_MORE = 21
    PAGE_REQ = 22
    REREQUEST = 23
    START_SYNC = 24
    UPDATE = 25
    UPDATE_REQ = 26
    VERIFY = 27
    VERIFY_FAIL = 28
    VERIFY_REQ = 29
    VOTE1 = 30
    VOTE2 = 31


class AckPolicy(IntEnum):
    """Whose acknowledgements make a write permanent; numbers of DB_REPMGR_ACKS_*."""

    ALL = 1
    ALL_AVAILABLE = 2
    ALL_PEERS = 3
    NONE = 4
    ONE = 5
    ONE_PEER = 6
    QUORUM = 7


class SiteStatus(IntEnum):
    """A member's status in the membership database."""

    ADDING = 1
    DELETING = 2
    PRESENT = 4


class ParamFlag(IntFlag):
    """Flags of the version 4 parameters."""

    SUBORDINATE = 0x01  # an extra link of a second process of the same site
    APP_CHANNEL = 0x02  # carries application messages only
    ELECTABLE = 0x04  # priority above 0
    TTSERVER_SITE = 0x40000000  # unused by the library; a native site ignores it


class StandingFlag(IntFlag):
    """Flags of SITE_STANDING."""

    COMPLETE_COPY = 0x01  # startup was once done here: the data can be served
    MASTER = 0x02  # the answering site is master now
    EMPTY = 0x04  # its environment holds no data
    GROUP_CREATOR = 0x08  # configured with db_group_creator on
    HAS_MEMBERSHIP = 0x10  # a membership database exists there
    WITNESS = 0x20  # it votes and never holds data
