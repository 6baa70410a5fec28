"""Amounts of bytes as people write them: 10737418240, "10 GiB", "500MB"."""

import re
from typing import Final

SIZE_MAX: Final = 2**60
_UNITS: Final = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
UNITS_TEXT: Final = "KB, MB, GB, TB (1000s) or KiB, MiB, GiB, TiB (1024s)"


class ByteSize(int):
    """A number of bytes that may be written with its unit."""


def parse_byte_size(value: object) -> ByteSize:
    """Read an amount of bytes.

    Args:
        value: a whole number of bytes, or a text such as `20 GB`, `1.5GiB`, `512`.

    Raises:
        ValueError: with the reason, a sentence's end: "must be ..., got ...".
    """
    size: float | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value, re.ASCII)
        unit = _UNITS.get(found[2].lower()) if found else None
        if found and unit:
            size = float(found[1]) * unit if "." in found[1] else int(found[1]) * unit
    if size is None:
        raise ValueError(f"must be bytes, or a number with {UNITS_TEXT}, got {value}")
    if not 0 <= size <= SIZE_MAX:
        raise ValueError(f"must be 0..{SIZE_MAX} bytes, got {value}")
    return ByteSize(size)
