"""Commands around the daemon's life: `init`, `run`, `check`, `wipe`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from storage.errors import ConfigError
from ttserver import wipe as wiping
from ttserver.cli.frame import (
    EXIT_FAILED,
    EXIT_USAGE,
    HomeOption,
    JsonOption,
    PasswordStdinOption,
    YesOption,
    confirmed,
    home_of,
    print_json,
    read_password,
)
from ttserver.errors import ConfigurationError, TtserverError
from ttserver.home import Home
from ttserver.render import console
from ttserver.summary import bytes_text

if TYPE_CHECKING:
    from ttserver.init import InitPlan

_LEVEL_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red", "skip": "dim"}


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("init")(_init)
    app.command("run")(_run)
    app.command("check")(_check)
    app.command("wipe")(_wipe)


# -- init


def _init(
    ctx: typer.Context,
    role: Annotated[
        Literal["master", "replicant", "witness"],
        typer.Option(
            "--role",
            help="master: creates the group and the administrator; witness: votes, holds no data.",
        ),
    ],
    local: Annotated[
        str, typer.Option("--local", metavar="HOST:PORT", help="This site, as the others reach it.")
    ],
    remote: Annotated[
        list[str] | None,
        typer.Option("--remote", metavar="HOST:PORT", help="Another site; may repeat."),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority",
            min=0,
            max=2**31 - 1,
            help="0 never becomes master; 1 on a master, 0 on a replicant when left out.",
            show_default=False,
        ),
    ] = None,
    remote_priority: Annotated[
        int | None,
        typer.Option(
            "--remote-priority",
            min=0,
            max=2**31 - 1,
            help="Highest priority of the other sites, for the choice of the ack policy.",
            show_default=False,
        ),
    ] = None,
    password_stdin: PasswordStdinOption = False,
    home: HomeOption = None,
) -> None:
    """Make the directory of a new site."""
    from storage.users import ADMINISTRATOR, new_record
    from ttserver import init as initial

    plan = initial.make_plan(
        home_of(ctx, home), role, local, remote or [], priority, remote_priority
    )
    password = record = None
    if role == "master":
        if password_stdin:
            password = read_password(from_stdin=True, name=ADMINISTRATOR)
        else:
            password = initial.new_password()
        record = new_record(ADMINISTRATOR, password, "administrator")
    elif password_stdin:
        raise ConfigurationError(
            f"a {role} has no users of its own",
            code="USAGE",
            hint="leave --password-stdin out",
        )
    made = initial.write(plan, record)
    _tell(plan, made, None if password_stdin else password)


def _tell(plan: "InitPlan", made: list[Path], password: str | None) -> None:
    from storage.users import ADMINISTRATOR
    from ttserver.init import policy_sentences

    out = console()
    home = plan.home.root
    out.print(Text(f"made the {plan.role} {plan.local} in {home}", style="bold"))
    for path in made:
        out.print(Text(f"  {path}"), soft_wrap=True)
    for sentence in policy_sentences(plan):
        out.print(Text(sentence), soft_wrap=True)
    if password is not None:
        out.print(
            Text.assemble(
                f"administrator {ADMINISTRATOR}, password ",
                (password, "bold"),
                "  (shown this once, kept nowhere)",
            ),
            soft_wrap=True,
        )
    out.print("next:", style="bold")
    steps = [f"ttserver --home {home} check", f"ttserver --home {home} run"]
    if plan.role == "master":
        port = plan.client_listen.port
        steps.append(
            f"redis-cli -h {plan.client_listen.host} -p {port} --user {ADMINISTRATOR} --askpass"
        )
    for step in steps:
        out.print(Text(f"  {step}"), soft_wrap=True)


# -- run


def _run(
    ctx: typer.Context,
    client_listen: Annotated[
        str | None,
        typer.Option("--client-listen", metavar="HOST:PORT", help="Instead of the file's."),
    ] = None,
    no_replication: Annotated[
        bool, typer.Option("--no-replication", "-X", help="Serve this site alone.")
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        typer.Option("--log-level", help="Lowest level written to standard error."),
    ] = "info",
    home: HomeOption = None,
) -> int:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C."""
    from ttserver.daemon import RunOptions, run  # the engine, the loop: not for `status`

    return run(
        RunOptions(
            home=home_of(ctx, home),
            client_listen=client_listen,
            replication=not no_replication,
            log_level=log_level,
        )
    )


# -- check


def _check(ctx: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Look for what would keep the site from working, before it is started or while it runs.

    Exit status 0 when nothing failed (warnings are allowed), 1 when something did, 2 when it is
    the configuration.
    """
    from ttserver.check import Finding, Level, run_checks

    out = console()
    findings: list[Finding] = []
    for finding in run_checks(home_of(ctx, home)):
        findings.append(finding)
        if not as_json:
            out.print(
                Text.assemble(
                    (f"{finding.level.value:<4}", _LEVEL_STYLES[finding.level.value]),
                    f"  {finding.topic:<14} {finding.text}",
                ),
                soft_wrap=True,
            )
            if finding.hint and finding.level in {Level.WARN, Level.FAIL}:
                out.print(Text(f"      HINT: {finding.hint}", style="dim"), soft_wrap=True)
    failed = [finding for finding in findings if finding.level is Level.FAIL]
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    if any(finding.configuration for finding in failed):
        return EXIT_USAGE
    return EXIT_FAILED if failed else 0


# -- wipe


def _wipe(
    ctx: typer.Context,
    yes: YesOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also on a site that may become master.")
    ] = False,
    home: HomeOption = None,
) -> int:
    """Remove the database of this site (all of var/db but DB_CONFIG), so that it starts over."""
    site = home_of(ctx, home)
    with site.locked():
        planned = wiping.plan(site.environment)
        _refuse_master(site, force=force)
        out = console()
        if not planned.names:
            out.print(Text(f"{planned.directory} is empty already; nothing was changed"))
            return 0
        kinds = ", ".join(f"{n} {kind}{'s'[: n > 1]}" for kind, n in planned.kinds().items())
        out.print(
            Text(f"in {planned.directory}: {kinds}; {bytes_text(planned.size_bytes)}"),
            soft_wrap=True,
        )
        if not confirmed("Remove them?", yes=yes):
            out.print("nothing was changed")
            return EXIT_FAILED
        wiping.remove(planned)
        for name in planned.names:
            out.print(Text(f"  removed {name}"), soft_wrap=True)
        out.print("at its next start this site asks the master for a complete copy")
    return 0


def _refuse_master(site: Home, *, force: bool) -> None:
    """Keep the only copy from being removed by a slip of the hand."""
    priority = _priority(site)
    if priority == 0:
        return
    warning = (
        f"this site may become master (priority {priority}): what no other site has is lost"
        if priority is not None
        else "this site's DB_CONFIG cannot be read, so it may be the master"
    )
    if not force:
        raise TtserverError(
            f"wipe refused: {warning}",
            code="MASTER",
            hint="see `ttserver status` on another site for who has the data; "
            "then give --force if you mean it",
        )
    console(stderr=True).print(Text(f"WARNING: {warning}", style="bold red"), soft_wrap=True)


def _priority(site: Home) -> int | None:
    from storage.dbconfig import read

    try:
        return read(site.root).priority
    except ConfigError:
        return None
