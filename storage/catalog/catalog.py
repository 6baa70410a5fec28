"""The catalog as one thing: its parts, over the databases of the site that is open now."""

from __future__ import annotations

from collections.abc import Callable

from storage.catalog.files import CatalogFiles, Pace, Pacer
from storage.catalog.history import History
from storage.catalog.jobs import Jobs
from storage.catalog.moves import Moves
from storage.catalog.queries import Queries
from storage.catalog.store import CatalogStore
from storage.catalog.tree import Tree
from storage.catalog.volumes import Volumes


class Catalog:
    """See the module's text. Every method of the parts takes the transaction it runs in.

    Args:
        files: gives the databases; asked at each use, because an environment may be replaced.
        pace: asked again and again while a transaction reads, see `storage.reads.Reads.pace`.

    Attributes:
        store: single records.
        tree: customers, media types, repositories.
        volumes: volumes, added, changed, deleted.
        moves: their life.
        queries: lists of them.
        history: what happened to them.
        jobs: work over many.
    """

    def __init__(self, files: Callable[[], CatalogFiles], pace: Pace) -> None:
        self.store = CatalogStore(Pacer(files, pace))
        self.tree = Tree(self.store)
        self.volumes = Volumes(self.store)
        self.moves = Moves(self.store, self.volumes)
        self.queries = Queries(self.store, self.tree)
        self.history = History(self.store)
        self.jobs = Jobs(self.store, self.tree, self.volumes, self.moves)
