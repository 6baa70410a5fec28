"""What happened, as a person reads it, and a digest of all of it.

     12.300      !! half: a b | c d e
     13.412  c   master_lost master=a reason="nothing heard from the master for 1.0 s"
     13.413  c   election_called nsites=4 nvotes=3

Two runs of a seed have the same digest, or something in them is not of the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from tests.sim.plan import PORT

# What makes up the story; the rest is only digested unless everything is asked for.
STORY: Final = frozenset(
    {
        "became_master",
        "duplicate_master",
        "election_called",
        "election_impossible",
        "election_over",
        "election_won",
        "generation_raised",
        "group_created",
        "joined_group",
        "master_lost",
        "master_refused",
        "new_master",
        "start_decided",
        "startup_done",
        "sync_receive_started",
        "waiting",
        "alarm_raised",
    }
)


class Transcript:
    """See the module's text.

    Args:
        everything: keep every line, not only the story.
    """

    def __init__(self, *, everything: bool = False) -> None:
        self.lines: list[str] = []
        self._everything = everything
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def event(self, now_s: float, site: str, event: str, facts: Mapping[str, object]) -> None:
        """A line of a site's journal."""
        words = " ".join(f"{name}={_text(value)}" for name, value in facts.items())
        self.line(now_s, f"{site:3} {event} {words}".rstrip(), told=event in STORY)

    def fault(self, now_s: float, text: str) -> None:
        """Something was done to the group."""
        self.line(now_s, f"    !! {text}", told=True)

    def line(self, now_s: float, text: str, *, told: bool) -> None:
        """Anything else."""
        line = f"{now_s:8.3f}  {text}"
        self._hash.update(line.encode() + b"\n")
        if told or self._everything:
            self.lines.append(line)

    def bytes(self, *parts: bytes) -> None:
        """What no person reads."""
        for part in parts:
            self._hash.update(part)


def _text(value: object) -> str:
    text = str(value).replace(f":{PORT}", "")
    return f'"{text}"' if " " in text else text
