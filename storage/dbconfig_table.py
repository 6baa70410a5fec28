"""Every directive of Berkeley DB 5.3's DB_CONFIG, as data: names, arguments, ranges, defaults.

The parser, the documentation and the tests read this table; nothing here parses. The library looks
the names of one half of its directives up with case and the other half without: `any_case` says
which, so that a file this table accepts is one the library accepts.

Limits tighter than the library's carry their reason: it answers some values (no lock partition,
a region larger than the disk) with a crash instead of an error.

Source: API reference, appendix "DB_CONFIG Parameter Reference" and the page of each method.
"""

from dataclasses import dataclass
from typing import Literal

from storage.dbconfig_options import (
    ACK_POLICIES,
    ENV_FLAGS,
    LOCK_DETECTORS,
    LOG_FLAGS,
    MEMORY_KINDS,
    OPEN_FLAGS,
    REP_CONFIGS,
    REP_TIMEOUTS,
    SITE_OPTIONS,
    VERBOSE,
)

UINT_MAX = 2**32 - 1
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
# Regions are made at start, in files of var/db: a typing error here must not fill the disk.
REGION_MAX = 10_000_000


@dataclass(frozen=True, slots=True)
class _Named:
    """An argument that has a name."""

    name: str

    @property
    def placeholder(self) -> str:
        """The name as it stands in a line that shows the form."""
        return self.name.upper().replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Number(_Named):
    """A decimal number; the unit is in the name."""

    low: int = 0
    high: int = UINT_MAX
    power_of_two: bool = False
    mode: bool = False  # file permission bits, which people write in octal


@dataclass(frozen=True, slots=True)
class Option(_Named):
    """One of a set of names, in any case."""

    among: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text(_Named):
    """The rest of the line, blanks included."""

    pattern: str = r".+"
    form: str = ""  # how to say the pattern


@dataclass(frozen=True, slots=True)
class Word(_Named):
    """One word."""


@dataclass(frozen=True, slots=True)
class Switch:
    """`on` or `off`; on when left out."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Any number of `OPTION on|off`."""

    among: tuple[str, ...]


Argument = Number | Option | Switch | Text | Word | Pairs
Repeat = Literal["once", "per option", "list", "per site"]


@dataclass(frozen=True, slots=True)
class Directive:
    """One name of DB_CONFIG.

    Args:
        name: as Berkeley DB spells it.
        arguments: what must follow.
        summary: for the documentation, one phrase.
        default: what holds without the line, in words.
        handled: done by this program; else the library reads the line itself.
        any_case: the library looks this name up without case.
        repeat: what a second line of this name means.
        same_as: the newer name of the same setting.
    """

    name: str
    arguments: tuple[Argument, ...]
    summary: str
    default: str
    handled: bool = False
    any_case: bool = False
    repeat: Repeat = "once"
    same_as: str | None = None

    @property
    def usage(self) -> str:
        """Show how a line is written."""
        return " ".join((self.name, *map(_usage, self.arguments)))

    @property
    def options(self) -> tuple[str, ...]:
        """Give the option names that may follow, none for most directives."""
        for argument in self.arguments:
            if isinstance(argument, Option | Pairs):
                return argument.among
        return ()


def _usage(argument: Argument) -> str:
    match argument:
        case Switch():
            return "[on|off]"
        case Pairs():
            return "[OPTION on|off] ..."
        case _:
            return argument.placeholder


_DIRECTORY = (Text("directory"),)
_GBYTES_BYTES = (Number("gbytes"), Number("bytes"))

_REPLICATION = (
    Directive(
        "rep_set_clockskew",
        (Number("fast clock"), Number("slow clock")),
        "ratio of the fastest to the slowest clock of the group; used by leases only",
        "1 1",
        handled=True,
    ),
    Directive(
        "rep_set_config",
        (Option("option", REP_CONFIGS), Switch()),
        "switches of replication, see the table of options",
        "see there",
        handled=True,
        any_case=True,
        repeat="per option",
    ),
    Directive(
        "rep_set_limit",
        _GBYTES_BYTES,
        "most that is sent in answer to one request of another site; 0 0: no limit",
        "0 10485760",
        handled=True,
    ),
    Directive(
        "rep_set_nsites",
        (Number("sites", low=1),),
        "sites of the group, for elections",
        "members of the group",
        handled=True,
    ),
    Directive(
        "rep_set_priority",
        (Number("priority"),),
        "who wins an election among sites with equal logs; 0: never master",
        "100",
        handled=True,
    ),
    Directive(
        "rep_set_request",
        (Number("min us", low=1), Number("max us", low=1)),
        "shortest and longest wait before a missing record is asked for again",
        "40000 1280000",
        handled=True,
    ),
    Directive(
        "rep_set_timeout",
        (Option("option", REP_TIMEOUTS), Number("us")),
        "time-outs of replication, see the table of options",
        "see there",
        handled=True,
        any_case=True,
        repeat="per option",
    ),
    Directive(
        "repmgr_set_ack_policy",
        (Option("policy", tuple(ACK_POLICIES)),),
        "which sites must acknowledge a write before it is answered",
        "db_repmgr_acks_quorum",
        handled=True,
        any_case=True,
    ),
    Directive(
        "repmgr_site",
        (Word("host"), Number("port", low=1, high=65535), Pairs(SITE_OPTIONS)),
        "one site of the group; exactly one of them is this site",
        "none: a lone master",
        handled=True,
        any_case=True,
        repeat="per site",
    ),
)

_DIRECTORIES = (
    Directive(
        "add_data_dir",
        _DIRECTORY,
        "a further directory to look for databases in",
        "var/db",
        repeat="list",
    ),
    Directive(
        "set_data_dir",
        _DIRECTORY,
        "as add_data_dir; the first one is where databases are made",
        "var/db",
        repeat="list",
    ),
    Directive(
        "db_data_dir",
        _DIRECTORY,
        "old name of set_data_dir",
        "var/db",
        repeat="list",
        same_as="set_data_dir",
    ),
    Directive(
        "set_create_dir",
        _DIRECTORY,
        "where new databases are made; one of the data directories, named before",
        "the first data directory",
    ),
    Directive("set_lg_dir", _DIRECTORY, "where the log files are", "var/db"),
    Directive("db_log_dir", _DIRECTORY, "old name of set_lg_dir", "var/db", same_as="set_lg_dir"),
    Directive("set_tmp_dir", _DIRECTORY, "where temporary files are", "TMPDIR, /var/tmp, ..."),
    Directive(
        "db_tmp_dir",
        _DIRECTORY,
        "old name of set_tmp_dir",
        "TMPDIR, /var/tmp, ...",
        same_as="set_tmp_dir",
    ),
    Directive(
        "set_metadata_dir",
        _DIRECTORY,
        "where the library's own databases are; the same at every site",
        "var/db",
    ),
    Directive(
        "set_intermediate_dir_mode",
        (Text("mode", r"(?!-{9})[r-][w-][x-][r-][w-][x-][r-][w-][x-]", "such as `rwxr-x---`"),),
        "permissions of directories that recovery makes",
        "none are made",
    ),
    Directive(
        "set_intermediate_dir",
        (Number("mode", low=1, high=0o777, mode=True),),
        "old form of set_intermediate_dir_mode, a decimal number",
        "none are made",
        any_case=True,
        same_as="set_intermediate_dir_mode",
    ),
)

_MEMORY = (
    Directive(
        "set_cachesize",
        (*_GBYTES_BYTES, Number("caches", high=INT_MAX)),
        "cache of database pages",
        "0 67108864 1",
        any_case=True,
    ),
    Directive("set_cache_max", _GBYTES_BYTES, "largest the cache may grow to", "as set_cachesize"),
    Directive("set_memory_max", _GBYTES_BYTES, "bound on all shared memory", "no bound"),
    Directive(
        "set_memory_init",
        (Option("kind", MEMORY_KINDS), Number("count", high=REGION_MAX)),
        "objects of one kind to make at start",
        "the library's choice",
        any_case=True,
        repeat="per option",
    ),
    Directive(
        "set_mp_max_openfd",
        (Number("files", high=INT_MAX),),
        "files open at once while the cache is flushed; 0: no limit",
        "0",
    ),
    Directive(
        "set_mp_max_write",
        (Number("pages", high=INT_MAX), Number("sleep us", high=INT_MAX)),
        "pages written in a row while the cache is flushed, and the pause after them",
        "0 0",
    ),
    Directive(
        "set_mp_mmapsize", (Number("bytes"),), "read-only files up to this are mapped", "10485760"
    ),
    Directive(
        "set_mp_mtxcount",
        (Number("mutexes", high=REGION_MAX),),
        "mutexes of the cache's hash table",
        "one a bucket",
    ),
    Directive(
        "set_mp_pagesize",
        (Number("bytes", low=512, high=65536, power_of_two=True),),
        "page size the cache's hash table is made for",
        "the library's choice",
    ),
    Directive("set_shm_key", (Number("key", high=LONG_MAX),), "System V segment key", "none"),
    Directive(
        "set_thread_count",
        (Number("threads", high=REGION_MAX),),
        "threads the library keeps track of",
        "0",
    ),
)

_LOG = (
    Directive("set_lg_bsize", (Number("bytes"),), "log buffer in memory", "4194304"),
    Directive("set_lg_max", (Number("bytes"),), "size of one log file", "33554432"),
    Directive(
        "set_lg_regionmax",
        (Number("bytes", low=130_000),),
        "memory for names of open files",
        "the library's choice",
    ),
    Directive(
        "set_lg_filemode",
        (Number("mode", high=0o777, mode=True),),
        "permissions of log files, a decimal number (384 is rw-------)",
        "384",
    ),
    Directive(
        "log_set_config",
        (Option("flag", LOG_FLAGS), Switch()),
        "switches of the log",
        "off",
        any_case=True,
        repeat="per option",
    ),
)

_LOCKS = (
    Directive(
        "set_lk_detect",
        (Option("policy", LOCK_DETECTORS),),
        "who gives way in a deadlock",
        "db_lock_youngest",
        any_case=True,
    ),
    Directive(
        "set_lk_max_lockers", (Number("lockers", high=REGION_MAX),), "lockers at once", "100000"
    ),
    Directive("set_lk_max_locks", (Number("locks", high=REGION_MAX),), "locks at once", "100000"),
    Directive(
        "set_lk_max_objects",
        (Number("objects", high=REGION_MAX),),
        "locked objects at once",
        "100000",
    ),
    Directive(
        "set_lk_partitions",
        # 0 ends the process in a division by zero.
        (Number("partitions", low=1, high=100_000),),
        "partitions of the lock table",
        "10 a processor",
    ),
    Directive(
        "set_lk_tablesize",
        (Number("buckets", high=REGION_MAX),),
        "size of the lock table",
        "the library's choice",
    ),
    Directive(
        "set_lock_timeout",
        (Number("us"),),
        "longest wait for a lock; 0: for ever",
        "0",
        any_case=True,
    ),
    Directive(
        "set_txn_timeout",
        (Number("us"),),
        "longest life of a transaction; 0: for ever",
        "0",
        any_case=True,
    ),
    Directive(
        "set_reg_timeout",
        (Number("us"),),
        "wait for other processes before recovery",
        "0",
        any_case=True,
    ),
    Directive(
        "set_tx_max", (Number("transactions", high=1_000_000),), "transactions at once", "1000"
    ),
    Directive(
        "mutex_set_align",
        (Number("bytes", low=1, high=2**16, power_of_two=True),),
        "alignment of mutexes",
        "the library's choice",
    ),
    Directive("mutex_set_increment", (Number("mutexes", high=REGION_MAX),), "mutexes to add", "0"),
    Directive(
        "mutex_set_init",
        (Number("mutexes", high=REGION_MAX),),
        "mutexes at start",
        "the library's choice",
    ),
    Directive(
        "mutex_set_max",
        (Number("mutexes", high=REGION_MAX),),
        "mutexes in all",
        "the library's choice",
    ),
    Directive(
        "mutex_set_tas_spins", (Number("spins"),), "spins before a thread sleeps", "50 a processor"
    ),
    Directive(
        "set_tas_spins",
        (Number("spins"),),
        "old name of mutex_set_tas_spins",
        "50 a processor",
        same_as="mutex_set_tas_spins",
    ),
)

_SWITCHES = (
    Directive(
        "set_flags",
        (Option("flag", ENV_FLAGS), Switch()),
        "switches of the environment",
        "off",
        any_case=True,
        repeat="per option",
    ),
    Directive(
        "set_open_flags",
        (Option("flag", OPEN_FLAGS), Switch()),
        "switches of opening the environment",
        "set by the server",
        any_case=True,
        repeat="per option",
    ),
    Directive(
        "set_region_init",
        (Number("on", high=1),),
        "touch all shared memory at start",
        "0",
        any_case=True,
    ),
    Directive(
        "set_verbose",
        (Option("option", VERBOSE), Switch()),
        "the library's own messages, written to $DB_Msg.txt",
        "off",
        any_case=True,
        repeat="per option",
    ),
    Directive("set_data_len", (Number("bytes"),), "bytes of an item that db_printlog shows", "100"),
)

DIRECTIVES: dict[str, Directive] = {
    directive.name: directive
    for directive in (*_REPLICATION, *_DIRECTORIES, *_MEMORY, *_LOG, *_LOCKS, *_SWITCHES)
}
