"""What a seed stands for: the group, its settings, and where every chance comes from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from replication.bodies import SiteAddress
from replication.messages import AckPolicy
from replication.settings import GroupSettings, RemoteSite

PORT: Final = 5010
SITES_MIN, SITES_MAX = 3, 7
PRIORITIES: Final = (0, 1, 10, 50, 50, 100)
ELECTION_TIMEOUT_S: Final = 2.0
FENCES_S: Final = (2.0, 2.0, 0.0)
LOG_FILE_BYTES: Final = 16 * 1024  # small, so that files end and go in a short run


@dataclass(frozen=True)
class Plan:
    """One simulated group.

    Args:
        priorities: of the sites, in order; the first creates the group.
        policy: of every site.
        durability: of every site: sync, write_nosync or nosync.
        fence_s: of every site; 0: a master that is cut off goes on.
    """

    seed: int
    priorities: tuple[int, ...]
    policy: AckPolicy
    durability: str
    fence_s: float

    @property
    def sites(self) -> list[SiteAddress]:
        """All sites, named by letters."""
        return [SiteAddress(chr(ord("a") + i), PORT) for i in range(len(self.priorities))]

    def dice(self, purpose: str) -> random.Random:
        """Return the source of chance for a purpose: none disturbs another."""
        return random.Random(f"{self.seed} {purpose}")

    def settings(self, site: SiteAddress) -> GroupSettings:
        """Return what a site is told; time-outs are ttserver's defaults."""
        creator, *_ = self.sites
        return GroupSettings(
            site,
            tuple(
                RemoteSite(other, helper=other == creator, creator=other == creator)
                for other in self.sites
                if other != site
            ),
            priority=self.priorities[self.sites.index(site)],
            creator=site == creator,
            ack_policy=self.policy,
            ack_timeout_s=1.0,
            election_timeout_s=ELECTION_TIMEOUT_S,
            election_retry_s=1.0,
            connection_retry_s=2.0,
            heartbeat_send_s=0.2,
            heartbeat_monitor_s=1.0,
            fence_s=self.fence_s,
            start_wait_s=2.0,
        )

    def __str__(self) -> str:
        names = " ".join(
            f"{site.host}({p})" for site, p in zip(self.sites, self.priorities, strict=True)
        )
        fence = f"fence {self.fence_s:g} s" if self.fence_s else "no fence"
        acks = f"acks {self.policy.name.lower()}"
        return f"seed {self.seed}: {names}, {acks}, {self.durability}, {fence}"


def plan(seed: int, sites: int | None = None) -> Plan:
    """Return the group of a seed.

    Args:
        sites: how many; the seed decides when it is not given.
    """
    dice = random.Random(f"{seed} plan")
    count = dice.randint(SITES_MIN, SITES_MAX)
    priorities = [dice.choice(PRIORITIES) for _ in range(sites or count)]
    priorities[0] = priorities[0] or 100  # the creator is the first master
    priorities[1] = priorities[1] or 10  # and somebody can take over
    policy = AckPolicy.QUORUM if dice.random() < 0.8 else AckPolicy.ONE
    durability = dice.choice(("sync", "sync", "sync", "sync", "write_nosync", "nosync"))
    fence_s = dice.choice(FENCES_S)
    return Plan(seed, tuple(priorities), policy, durability, fence_s)
