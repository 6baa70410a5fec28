"""The configuration of a site: ttserver.toml, DB_CONFIG and the command line, together.

Raises `storage.errors.ConfigError` for both files, so that a command prints any error of a
configuration file the same way: `FILE:LINE: what`, then the hint.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from storage import dbconfig
from storage.dbconfig import ConfigWarning, DbConfig
from storage.errors import ConfigError
from ttserver.address import Address
from ttserver.home import Home
from ttserver.settings import Settings
from ttserver.settings_file import FILE, checked_settings, parse_settings, shown

COMMAND_LINE = "command line"
REPLICATION_PORT = 5010


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that was decided about one site before it starts.

    Args:
        home: where its files are.
        settings: ttserver.toml with the overrides of the command line.
        db: DB_CONFIG.
        local: this site's identity in the group.
        replication_listen: where the replication port listens.
        warnings: to be logged once at start.
    """

    home: Home
    settings: Settings
    db: DbConfig
    local: Address
    replication_listen: Address
    warnings: tuple[ConfigWarning, ...]

    def in_force(self) -> dict[str, str]:
        """Name every setting with its value as text: ttserver.toml's by section, then ours.

        DB_CONFIG's appear by the name of their directive and option.
        """
        named = {
            f"{section}.{key.name}": shown(getattr(getattr(self.settings, section), key.name))
            for section in Settings.__struct_fields__
            for key in structs.fields(getattr(self.settings, section))
        }
        named["replication.listen"] = str(self.replication_listen)
        named["rep_set_priority"] = str(self.db.priority)
        named["repmgr_set_ack_policy"] = f"db_repmgr_acks_{self.db.ack_policy.lower()}"
        for option, (field, _) in dbconfig.TIMEOUT_FIELDS.items():
            seconds = getattr(self.db.timeouts, field)
            named[f"rep_set_timeout.{option}"] = str(round((seconds or 0) * 1_000_000))
        for option, field in dbconfig.CONFIG_FIELDS.items():
            named[f"rep_set_config.{option}"] = shown(getattr(self.db.rep_config, field))
        return named


def load(
    home: Home, overrides: Mapping[str, object] | None = None, *, install: bool = False
) -> ServerConfig:
    """Read the whole configuration of a site.

    Args:
        home: the site's directory.
        overrides: what the command line says, by the dotted name of the key: `client.listen`.
        install: bring var/db/DB_CONFIG up to date as well; the caller holds the lock of `home`.

    Raises:
        ConfigError: the first thing that is wrong in the first bad file; its `all` has the rest.
        ConfigurationError: there is no such directory.
    """
    home.must_exist()
    settings = load_settings(home, overrides)
    db = dbconfig.install(home.root) if install else dbconfig.read(home.root)
    local = _identity(settings, db)
    listen = settings.replication.listen or local
    warnings = list(db.warnings)
    if _collide(settings.client.listen, listen):
        raise ConfigError(
            f"client.listen ({settings.client.listen}) and the replication port ({listen}) are the"
            " same",
            file=FILE,
            hint="give each its own port: 5000 for clients, 5010 for replication.",
        )
    if settings.replication.witness:
        _check_witness(settings, db, local)
    if settings.replication.preferred_master == local and db.priority == 0:
        raise ConfigError(
            f"replication.preferred_master is this site ({local}), whose priority is 0",
            file=FILE,
            hint="write `rep_set_priority 1`, or more, into DB_CONFIG.",
        )
    if settings.limits.bulk_bytes_max > settings.limits.frame_bytes_max:
        warnings.append(
            ConfigWarning(
                0, "limits.bulk_bytes_max is above limits.frame_bytes_max, which wins", FILE
            )
        )
    return ServerConfig(home, settings, db, local, listen, tuple(warnings))


def load_settings(home: Home, overrides: Mapping[str, object] | None = None) -> Settings:
    """Read ttserver.toml alone; without the file everything has its default.

    Args:
        home: the site's directory.
        overrides: as in `load`.

    Raises:
        ConfigError: the file or an override is wrong.
    """
    try:
        data = home.toml.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}",
            file=FILE,
            code="UNREADABLE",
            hint=f"make {home.toml} a file that the server's user can read.",
        ) from error
    settings = parse_settings(data)
    if not overrides:
        return settings
    tree: dict[str, dict[str, object]] = {}
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    return checked_settings(settings, tree, COMMAND_LINE, {})


def _check_witness(settings: Settings, db: DbConfig, local: Address) -> None:
    """Refuse what a site without data cannot be."""
    if db.priority_set and db.priority > 0:
        raise ConfigError(
            f"replication.witness is true, and rep_set_priority is {db.priority}",
            file=FILE,
            hint="write `rep_set_priority 0` into DB_CONFIG: a witness never becomes master.",
        )
    if not db.remote_sites:
        raise ConfigError(
            "replication.witness is true, and DB_CONFIG names no other site",
            file=FILE,
            hint="add `repmgr_site HOST PORT db_bootstrap_helper on` for a site of the group.",
        )
    if settings.replication.preferred_master == local:
        raise ConfigError(
            f"replication.preferred_master is this site ({local}), which is a witness",
            file=FILE,
            hint="name a site that holds data.",
        )


def _identity(settings: Settings, db: DbConfig) -> Address:
    """Find the address this site has in the group."""
    if db.local_site is not None:
        return Address(db.local_site.host, db.local_site.port)
    listen = settings.replication.listen
    if listen is None:
        return Address("127.0.0.1", REPLICATION_PORT)
    if listen.wildcard:
        raise ConfigError(
            f"replication.listen ({listen}) is every interface, so this site has no name",
            file=FILE,
            hint=f"add `repmgr_site HOST {listen.port} db_local_site on` to DB_CONFIG.",
        )
    if listen.port == 0:
        raise ConfigError(
            f"replication.listen ({listen}) has no port of its own, so this site has no name",
            file=FILE,
            hint=f"write {Address(listen.host, REPLICATION_PORT)}.",
        )
    return listen


def _collide(one: Address, other: Address) -> bool:
    return one.port == other.port != 0 and (
        one.host == other.host or one.wildcard or other.wildcard
    )
