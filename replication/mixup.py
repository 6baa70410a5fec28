"""Who is it that speaks to the replication port, judged by the first bytes (sans-I/O).

    first bytes                      verdict       what happened
    02                               none          a handshake: let the decoder judge it
    * $ + - :  or  PING CR LF        mixup_resp    a Redis client, or we dialled a client port
    GET /  POST  HTTP/ ...           mixup_http    a browser, or we dialled the console
    16 03, 15 03                     mixup_tls     TLS is on at one end only
    anything else                    not_replication

The verdict depends on the bytes alone, never on how they were cut into chunks: every prefix is
judged, the shortest that decides counts.
"""

from __future__ import annotations

from typing import Final

from replication.errors import RemoteProtocolError
from replication.messages import MessageType
from replication.wire import HEADER_BYTES

_HTTP_METHODS: Final = frozenset(
    {b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"}
) | {b"PRI", b"PROPFIND"}
_BLANKS: Final = b" \r\n"
_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_TLS_RECORDS: Final = b"\x15\x16"

_SPEAKERS: Final = {
    "mixup_resp": (
        "the other side speaks RESP, the Redis protocol",
        "connect clients to the client port (5000 unless configured otherwise)",
    ),
    "mixup_http": (
        "the other side speaks HTTP",
        "point browsers and probes at the console port (5080 unless configured otherwise)",
    ),
    "mixup_tls": (
        "the other side speaks TLS, this link does not",
        "switch TLS on for replication at both sites or at neither",
    ),
    "not_replication": (
        "the other side is no replication site",
        "find out which program connects these two ports",
    ),
}


def check_first_bytes(data: bytes | bytearray) -> bool:
    """Judge the first bytes of a link.

    Returns:
        True once they can only be a frame's; False while more bytes are needed to tell.

    Raises:
        RemoteProtocolError: mixup_resp, mixup_http, mixup_tls or not_replication.
    """
    if not data:
        return False
    if data[0] == MessageType.HANDSHAKE:
        return True
    for length in range(1, min(len(data), HEADER_BYTES) + 1):
        prefix = bytes(data[:length])
        verdict = _judge(prefix)
        if verdict is not None:
            who, hint = _SPEAKERS[verdict]
            raise RemoteProtocolError(
                f"not a replication link: {who} (first bytes {prefix!r})",
                code=verdict,
                hint=hint,
                first_bytes=prefix.hex(),
            )
    return False


def _judge(prefix: bytes) -> str | None:
    """Return the verdict on exactly these bytes, None if one more is needed."""
    if prefix[0] in b"*$+-:":
        return "mixup_resp"
    if prefix[0] in _TLS_RECORDS:
        if len(prefix) == 1:
            return None
        return "mixup_tls" if prefix[1] == 3 else "not_replication"
    if prefix[0] not in _LETTERS:
        return "not_replication"
    if prefix == b"HTTP/":
        return "mixup_http"
    word_bytes = next((at for at, byte in enumerate(prefix) if byte in _BLANKS), None)
    if word_bytes is None:
        return "not_replication" if len(prefix) == HEADER_BYTES else None
    word = prefix[:word_bytes]
    if word not in _HTTP_METHODS or prefix[word_bytes] != 0x20:
        return "mixup_resp"  # an inline command
    if word != b"GET":
        return "mixup_http"
    # GET is a command of both: a path decides.
    if len(prefix) == word_bytes + 1:
        return None
    return "mixup_http" if prefix[-1] == 0x2F else "mixup_resp"
