"""When an election is worth calling and with which numbers (no input or output).

    members   2SITE_STRICT   nsites                                   nvotes
    1         -              1                                        1
    2         on             2                                        2: one survivor never wins
    2         off            2                                        1
    n > 2     -              n, or n-1 in the first try after a lost  n // 2 + 1
                             master (its vote cannot come, and waiting
                             for it would cost the whole time-out)

Members count whatever their status or priority: priority 0 votes too, it only never wins.

Source: Programmer's Reference, "Elections"; the library's repmgr numbers.
"""

from typing import NamedTuple


class Ballot(NamedTuple):
    """The two numbers of an election."""

    nsites: int
    nvotes: int


def ballot(members: int, *, two_site_strict: bool, master_just_lost: bool) -> Ballot:
    """Return the numbers for an election among `members` sites.

    Args:
        members: sites of the group, this one included, at least 1.
        two_site_strict: in a group of two, both votes are needed.
        master_just_lost: this is the first try after the master's link broke.
    """
    nvotes = 1 if members == 2 and not two_site_strict else members // 2 + 1
    nsites = members - 1 if master_just_lost and members > 2 else members
    return Ballot(max(nsites, nvotes), nvotes)
