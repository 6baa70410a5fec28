"""The daemon: configuration, wiring, the client port, roles and rights, status, command lines."""

__version__ = "0.1.0"
