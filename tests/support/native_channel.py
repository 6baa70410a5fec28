"""Application channels of a native site (DB_ENV->repmgr_channel), which the binding leaves out.

The library exports the functions behind its methods; the handle they want is the binding's.
"""

from __future__ import annotations

import ctypes
from typing import Final

from berkeleydb import db

# A DBEnv of the binding begins with Python's object header; the library's handle follows.
_HANDLE_AT: Final = 16
_DBT_USERMEM: Final = 0x800
_ANSWER_BYTES_MAX: Final = 4096
_TIMEOUT_US: Final = 30_000_000


class _Dbt(ctypes.Structure):
    """The library's DBT."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint32),
        ("ulen", ctypes.c_uint32),
        ("dlen", ctypes.c_uint32),
        ("doff", ctypes.c_uint32),
        ("app_data", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
    )


class Channel:
    """A channel of this environment to another site.

    Args:
        env: of a native site that was started.
        eid: the other site, or -3 for the master, whoever that is.

    Raises:
        OSError: the library could not make it; `errno` is what it returned.
    """

    def __init__(self, env: db.DBEnv, eid: int) -> None:
        self._library = ctypes.CDLL("libdb-5.3.so")
        handle = ctypes.c_void_p.from_address(id(env) + _HANDLE_AT)
        self._channel = ctypes.c_void_p()
        _check(self._library["__repmgr_channel"](handle, eid, ctypes.byref(self._channel), 0))

    def send(self, text: str) -> int:
        """Send a message that wants no answer; return the library's code, 0 for sent."""
        message, _data = _dbt(text)
        return int(self._library["__repmgr_send_msg"](self._channel, ctypes.byref(message), 1, 0))

    def request(self, text: str) -> int:
        """Ask something and wait for the answer; return the library's code, 0 for answered."""
        message, _data = _dbt(text)
        room = ctypes.create_string_buffer(_ANSWER_BYTES_MAX)
        answer = _Dbt(data=ctypes.addressof(room), ulen=len(room), flags=_DBT_USERMEM)
        return int(
            self._library["__repmgr_send_request"](
                self._channel, ctypes.byref(message), 1, ctypes.byref(answer), _TIMEOUT_US, 0
            )
        )

    def close(self) -> None:
        """Close its connections."""
        _check(self._library["__repmgr_channel_close"](self._channel, 0))


def _dbt(text: str) -> tuple[_Dbt, ctypes.Array[ctypes.c_char]]:
    """Wrap a text; the second of the pair keeps the bytes alive."""
    data = ctypes.create_string_buffer(text.encode())
    return _Dbt(data=ctypes.addressof(data), size=len(data)), data


def _check(code: int) -> None:
    if code:
        raise OSError(code, f"the library returned {code}")
