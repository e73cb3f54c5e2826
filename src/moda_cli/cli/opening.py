"""Finished files and pages shown with the system's own programs."""

import os
import sys
import threading
from pathlib import Path

import typer


def open_file(path: Path | str) -> None:
    """Show a file or a page with the program that the system has for it, or say there is none."""
    try:
        if sys.platform == "win32":
            os.startfile(path)
            return
        import subprocess

        opener = "open" if sys.platform == "darwin" else "xdg-open"
        subprocess.Popen(
            [opener, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        typer.echo(f"note: this system has no program that opens files; open {path}", err=True)


def stay(address: str, opened: bool, goodbye: str) -> None:
    """Say where a page is, show it if it is to be `opened`, and serve it until Ctrl-C."""
    typer.echo(address)
    if opened:
        open_file(address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        if goodbye:
            typer.echo(goodbye, err=True)
