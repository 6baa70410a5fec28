"""Rows of CSV files, ours and those of other programs with a mapping file."""

from __future__ import annotations

import pytest

from ttserver.errors import ConfigurationError
from ttserver.tt.mapping import parse_map
from ttserver.tt.rows import Row, read_rows

MAP = """\
customer = "US04"
exclude = ["CLN*", "DIAG??"]

[columns]
volume = "barcode"
family = "family"
repository = "location"
description = "pool"
date = 7

[repositories]
Library = "LIBR"
Offsite = "OFFS"

[families]
tape = "LTO"
dlt = "DL"
spare = ""
"""
# A first line with a column less than the rows have: that is how some programs write.
THEIRS = """\
volume,barcode,family,type,location,pool
000000L6,000000L6,tape,LTO,Library,weekly,2031-07-21
000001L6,000001L6, dlt,LTO,Offsite,weekly  full,1970-01-01
000002L6,000002L6,spare,LTO,Offsite,weekly_full,2031-07-21
000003L6,000003L6,disk,LTO,Racking,weekly_full,2031-07-21
CLN00012,CLN00012,CLN,LTO,,Cleaning_Tape,

000004L6,000004L6,tape,LTO,RACK,,
000004L6,000004L6,tape,LTO,RACK,,
000005L6,000005L6,tape,LTO
DIAG01,DIAG01,CLN
"""


def rows(text: str, mapping: str) -> list[Row]:
    lines = text.splitlines(keepends=True)
    return list(read_rows("theirs.csv", lines, parse_map("map.toml", mapping)))


def test_a_file_of_another_program() -> None:
    assert rows(THEIRS, MAP) == [
        Row(2, "US04.LTO.000000L6", ("IN", "LIBR", "DESCRIPTION", "weekly", "DATE", "2031-07-21")),
        Row(3, "US04.DL.000001L6", ("IN", "OFFS", "DESCRIPTION", "weekly full")),
        Row(4, "000002L6", (), left_out=True),
        Row(5, "000003L6", (), "volume 000003L6: family 'disk' is not in the mapping file"),
        Row(6, "CLN00012", (), left_out=True),
        Row(8, "US04.LTO.000004L6", ("IN", "RACK")),
        Row(9, "US04.LTO.000004L6", ("IN", "RACK"), "volume US04.LTO.000004L6: it is in line 8,"
            " too"),
        Row(10, "", (), "it has fewer fields than the mapping file says"),
        Row(11, "DIAG01", (), left_out=True),
    ]  # fmt: skip


def test_a_file_without_names() -> None:
    mapping = """\
customer = "ACME"
media = "LTO"
delimiter = ";"
header = false
columns = { volume = 2, notes = 1, home = 3 }
repositories = { vault = "OFFS" }
"""
    text = "a, b;1;vault\nc;US04.DL.2;RACK\nd;3\n"
    assert rows(text, mapping) == [
        Row(1, "ACME.LTO.1", ("HOME", "OFFS", "NOTES", "a, b")),
        Row(2, "US04.DL.2", ("HOME", "RACK", "NOTES", "c")),
        Row(3, "", (), "it has fewer fields than the mapping file says"),
    ]


def test_our_own_names_with_families_and_exclusions() -> None:
    mapping = 'customer = "US04"\nexclude = ["CLN*"]\nfamilies = { tape = "LTO" }\n'
    assert rows("Volume,Family\n1,tape\nUS04.LTO.CLN1,tape\n", mapping) == [
        Row(2, "US04.LTO.1", ()),
        Row(3, "US04.LTO.CLN1", (), left_out=True),
    ]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("customer = US04", "mapping file map.toml refused: Invalid value (at line 1, column 12)"),
        ("customers = 'US04'", "refused: Object contains unknown field `customers`"),
        ("delimiter = ';;'", "refused: Expected `str` of length <= 1 - at `$.delimiter`"),
        ("columns = { volume = 0 }", "refused: Expected `int` >= 1 - at `$.columns[...]`"),
        ("columns = { volume = 1.5 }", "refused: Expected `int | str`, got `float`"),
        ("columns = { tape = 'x' }", "refused: column `tape` is none of customer, media, volume,"),
        ("columns = { date = 'x' }", "refused: [columns] says not where the volume is"),
        ("header = false", "refused: [columns] says not where the volume is"),
        ("header = false\ncolumns = { volume = 'x' }", "refused: column `volume` needs a number"),
        ("columns = { volume = 1 }\nfamilies = { a = 'LTO' }", "says not where the family is"),
        ("exclude = ['[9']", "refused: filter '[9' refused"),
        ("columns = { volume = 'tape' }", "file theirs.csv has no column `tape` in its first line"),
        ("columns = { volume = 'twice' }", "file theirs.csv has the column `twice` twice"),
        ("families = { a = 'LTO' }", "file theirs.csv has no column `family` in its first line"),
    ],
)
def test_a_mapping_file_that_cannot_be(mapping: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        rows("volume,twice,twice\n" if "twice" in mapping else "volume\n", mapping)
    assert said in str(raised.value)
    assert raised.value.hint
