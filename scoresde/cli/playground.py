r"""The command that serves the playground."""

from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from ..playground.serving import PORT, open_browser, served
from .options import Debug

app = typer.Typer()


@app.command()
def playground(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = PORT,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder for all files; by default, a temporary one, which is removed."),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    debug: Debug = False,
) -> None:
    r"""Serve a page on which solvers are tried by hand, on this machine alone."""

    with served(folder, port) as (address, room):
        typer.echo(f"playground: {address}\nfiles: {room}\nCtrl-C ends it.")
        if browser and not open_browser(address):
            typer.echo(f"no browser was found; open {address} in one.", err=True)
        try:
            Event().wait()
        except KeyboardInterrupt:
            typer.echo("ended.")
