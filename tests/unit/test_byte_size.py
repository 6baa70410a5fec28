"""Amounts of bytes as people write them."""

from __future__ import annotations

import pytest

from storage.errors import ConfigError
from ttserver.byte_size import SIZE_MAX, ByteSize, parse_byte_size
from ttserver.settings_file import parse_settings


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (10_737_418_240, 10_737_418_240),
        ("512", 512),
        ("512B", 512),
        ("20 GB", 20 * 10**9),
        ("20gb", 20 * 10**9),
        ("20 GiB", 20 * 2**30),
        ("1.5MiB", 3 * 2**19),
        ("0.5 KB", 500),
        (" 1 TB ", 10**12),
        (SIZE_MAX, SIZE_MAX),
    ],
)
def test_an_amount(written: object, size: int) -> None:
    assert parse_byte_size(written) == size


@pytest.mark.parametrize(
    "written",
    [
        "",
        "GB",
        "20 XB",
        "-1",
        "1e9",
        "1,5 GB",
        "20 G B",
        1.5,
        True,
        None,
        "\N{ARABIC-INDIC DIGIT FIVE}",
    ],
)
def test_what_is_none(written: object) -> None:
    with pytest.raises(ValueError, match="must be bytes, or a number with KB"):
        parse_byte_size(written)


@pytest.mark.parametrize("written", [-1, SIZE_MAX + 1, "2000000 TB"])
def test_out_of_range(written: object) -> None:
    with pytest.raises(ValueError, match=r"must be 0\.\."):
        parse_byte_size(written)


def test_in_ttserver_toml() -> None:
    read = parse_settings(b'[storage]\nlog_budget = "20 GB"\n').storage.log_budget
    assert read == ByteSize(20 * 10**9)
    assert parse_settings(b"").storage.log_budget == 0
    with pytest.raises(
        ConfigError, match=r"storage\.log_budget must be bytes.* got a lot"
    ) as caught:
        parse_settings(b'[storage]\nlog_budget = "a lot"\n')
    assert caught.value.line == 2
