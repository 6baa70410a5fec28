"""Which keys clients WATCH, and whether one of them was changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable


class Watch:
    """The keys one connection watches."""

    __slots__ = ("_changed", "_moved", "_watches", "keys")

    def __init__(
        self, watches: Watches, keys: frozenset[bytes], moved: Callable[[], bool] | None
    ) -> None:
        self._watches = watches
        self._moved = moved
        self._changed = False
        self.keys = keys

    @property
    def dirty(self) -> bool:
        """Whether a write ran that may have changed one of the keys. *Thread:* any."""
        return self._changed or (self._moved is not None and self._moved())

    def mark(self) -> None:
        """Make it dirty. *Thread:* any."""
        self._changed = True

    def close(self) -> None:
        """Forget the keys."""
        self._watches.remove(self)


class Watches:
    """All watches of a site.

    *Thread:* `add` and `remove` in the event loop, `touch` on the committer. A key's watchers are
    replaced, never changed, so the committer never walks a set that changes.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, frozenset[Watch]] = {}
        self._lock = threading.Lock()

    def add(self, keys: Iterable[bytes], moved: Callable[[], bool] | None = None) -> Watch:
        """Start watching.

        Args:
            keys: which.
            moved: asked as well whether anything changed, where changes do not come by `touch`:
                on a replicant they come with the log and name no keys.
        """
        watch = Watch(self, frozenset(keys), moved)
        with self._lock:
            for key in watch.keys:
                self._by_key[key] = self._by_key.get(key, frozenset()) | {watch}
        return watch

    def remove(self, watch: Watch) -> None:
        """Stop; unknown watches are ignored."""
        with self._lock:
            for key in watch.keys:
                left = self._by_key.get(key, frozenset()) - {watch}
                if left:
                    self._by_key[key] = left
                else:
                    self._by_key.pop(key, None)

    def touch(self, keys: Iterable[bytes], spared: Collection[Watch] = ()) -> None:
        """Mark everyone who watches one of `keys`, but `spared`."""
        if not self._by_key:
            return
        for key in keys:
            for watch in self._by_key.get(key, ()):
                if watch not in spared:
                    watch.mark()

    def touch_all(self) -> None:
        """Mark everyone: the database changed in a way that names no keys (a role change)."""
        with self._lock:
            everyone = [watch for watchers in self._by_key.values() for watch in watchers]
        for watch in everyone:
            watch.mark()
