"""`tt sample`: a made-up tape vault of any size, as CSV or put into a server, to try things out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ttserver import sample
from ttserver.client.errors import ClientError
from ttserver.errors import TtserverError
from ttserver.tt.frame import JsonOption, ServerOption, exit_if, session_of
from ttserver.tt.load import Loaded, progress, send_rows, tell
from ttserver.tt.rows import read_rows
from ttserver.tt.session import Session

VOLUMES = 10_000
# It is there already; or it is written, and another site confirms it later.
_WRITTEN = ("EXISTS", "PERMFAILED")


def register(app: typer.Typer) -> None:
    """Add this verb to the program."""
    app.command("sample")(_sample)


def _sample(
    ctx: typer.Context,
    volumes: Annotated[
        int, typer.Option("--volumes", "-n", min=0, max=sample.VOLUMES_MAX, help="How many.")
    ] = VOLUMES,
    seed: Annotated[
        int, typer.Option("--seed", help="Another one gives another inventory.")
    ] = sample.SEED,
    load: Annotated[
        bool, typer.Option("--load", help="Put it into the server, customers and all.")
    ] = False,
    as_json: JsonOption = False,
    server: ServerOption = None,
) -> None:
    """Make up the inventory of a tape vault: five customers, their volumes in four repositories.

    Printed as CSV for `tt load`, or put into a server that has no other customers. The same seed
    gives the same inventory.
    """
    if not load:
        sys.stdout.writelines(sample.csv_lines(sample.volumes(volumes, seed)))
        return
    with session_of(ctx, server) as session, progress(volumes) as advance:
        loaded = put(session, volumes, advance, seed=seed)
    tell(loaded, dry_run=False, as_json=as_json)
    exit_if(len(loaded.bad) + loaded.unconfirmed)


def put(
    session: Session, volumes: int, advance: Callable[[], None], *, seed: int = sample.SEED
) -> Loaded:
    """Put sample data into a server; what is there already is left alone.

    Args:
        session: logged on.
        volumes: how many.
        advance: called after each volume.
        seed: see `ttserver.sample.volumes`.

    Raises:
        TtserverError: the server has customers of its own, takes no updates, or is not reached.
    """
    for customer in session.pages("CUSTOMER.LIST"):
        if customer["description"] != sample.description_of(customer["name"]):
            raise TtserverError(
                f"sample data refused: customer {customer['name']} of this server is a real one",
                code="SAMPLE",
                hint="put it into a server of its own, or leave --load out and have it printed.",
            )
    for answer in session.write_all(sample.structure()):
        if isinstance(answer, ClientError) and answer.code not in _WRITTEN:
            raise answer
    loaded = Loaded()
    lines = sample.csv_lines(sample.volumes(volumes, seed))
    send_rows(session, read_rows("of sample data", lines), loaded, advance)
    return loaded
