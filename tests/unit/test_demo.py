"""The demo's ports."""

import socket

import pytest

from ttserver.demo.ports import free, reserved


def test_a_reserved_port_is_for_the_server_that_names_it() -> None:
    with reserved("127.0.0.1") as address:
        assert free(address)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port), timeout=5)
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind((address.host, address.port))
        with socket.create_server((address.host, address.port)):
            assert not free(address)
            socket.create_connection((address.host, address.port), timeout=5).close()
