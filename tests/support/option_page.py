"""Every option of every command, from the app itself: `python tests/support/option_page.py`
writes docs/options.md (tests/test_docs.py keeps it current)."""

from collections.abc import Iterator
from typing import Any

import typer

from moda_cli.cli import app
from moda_cli.cli.command import described


def page() -> str:
    """Markdown: a section a command, a table a heading."""
    group: Any = typer.main.get_command(app)
    lines = ["# Options", "", "Written by `python tests/support/option_page.py > docs/options.md`."]
    for name, command in group.commands.items():
        if name != "help":
            lines += [
                "",
                f"## moda {name}",
                "",
                command.help.partition("\n\n")[0].replace("\n", " "),
            ]
            lines += _tables(command)
    return "\n".join(lines) + "\n"


def _tables(command: Any) -> Iterator[str]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(typer.Context(command, info_name=command.name)):
        if not getattr(param, "hidden", False) and param.name != "help":
            title = getattr(param, "rich_help_panel", None) or "Other"
            panels.setdefault(title, []).append(described(param))
    for title, rows in panels.items():
        yield from ("", f"| {title} | |", "| --- | --- |")
        for name, told in rows:
            yield f"| `{name}` | {' '.join(told.split()).replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    print(page(), end="")
