"""`ttserver`, the operator's program: one module a family of commands, `main` the entry point."""

from ttserver.cli.main import main

__all__ = ["main"]
