"""`tt`, the users' program: one module a family of verbs, `main` the entry point."""

from ttserver.tt.main import main, run

__all__ = ["main", "run"]
