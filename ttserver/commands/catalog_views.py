"""The catalog's records as replies: maps of names and plain values, the same for every program."""

from __future__ import annotations

from typing import Any

from storage.catalog.history import Happened
from storage.catalog.jobs import Balance, Outcome
from storage.catalog.names import customer_of, id_of, media_of
from storage.catalog.records import Customer, Media, Place, Repository, Volume
from storage.catalog.store import time_text
from ttserver.replies import Value


def customer_map(name: str, record: Customer) -> Value:
    """One customer."""
    return {
        "name": name,
        "description": record.description,
        "contact": record.contact,
        "locked": record.locked,
        "unique": record.unique,
        "media_max": record.media_max,
    }


def media_map(name: str, record: Media, volumes: int) -> Value:
    """One media type, with how many volumes it has."""
    return {
        "name": name,
        "customer": customer_of(name),
        "media": id_of(name),
        "description": record.description,
        "filter": record.filter or None,
        "volumes_max": record.volumes_max,
        "repositories_max": record.repositories_max,
        "default": record.default or None,
        "locked": record.locked,
        "warn_back": record.warn_back,
        "volumes": volumes,
    }


def repository_map(name: str, record: Repository, counts: list[int]) -> Value:
    """One repository, with how many volumes are in it, coming and going."""
    return {
        "name": name,
        "customer": customer_of(name),
        "media": id_of(media_of(name)),
        "repository": id_of(name),
        "description": record.description,
        "type": record.type,
        "next": record.next or None,
        "offsite": record.offsite,
        "scratch": record.scratch,
        "priority": record.priority,
        "filter": record.filter or None,
        "deletes": record.deletes,
        "volumes": counts[0],
        "incoming": counts[1],
        "outgoing": counts[2],
    }


def volume_map(name: str, volume: Volume, flags: str) -> dict[str, Any]:
    """One volume, with all its flags."""
    customer, media, number = name.split(".")
    return {
        "name": name,
        "customer": customer,
        "media": media,
        "volume": number,
        "description": volume.description,
        "flags": flags,
        "current": _place(volume.current),
        "target": _place(volume.target),
        "scanned": None if volume.scanned is None else _place(volume.scanned),
        "date": None if volume.date is None else volume.date.isoformat(),
        "overdue_days": volume.overdue_days,
        "container": volume.container or None,
        "contents": volume.contents,
        "home": volume.home or None,
        "encrypted": "E" in volume.flags,
        "notes": volume.notes,
    }


def _place(place: Place) -> Value:
    return {
        "repository": place.repository,
        "at": time_text(place.at),
        "by": place.by,
        "via": place.via,
    }


def history_map(one: Happened) -> Value:
    """One record of the history."""
    record = one.record
    return {
        "name": one.name,
        "number": one.number,
        "at": time_text(record.at),
        "by": record.by,
        "via": record.via,
        "what": record.what,
        "before": dict(record.before),
        "after": dict(record.after),
    }


def outcome_map(outcome: Outcome) -> Value:
    """What a job made of one volume."""
    return {
        "name": outcome.name,
        "verdict": outcome.verdict,
        "repository": outcome.place or None,
        "target": outcome.target or None,
        "why": outcome.why or None,
    }


def balance_map(balance: Balance) -> Value:
    """What a repository has, and what is on its way."""
    return {
        "repository": balance.repository,
        "volumes": balance.inside,
        "incoming": balance.incoming,
        "outgoing": balance.outgoing,
        "difference": balance.difference,
        "deficit": max(0, -balance.difference),
        "surplus": max(0, balance.difference),
        "scratch": [{"repository": name, "volumes": count} for name, count in balance.scratch],
    }
