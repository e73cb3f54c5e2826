"""Defaults of a user's own: MODA_OPTION in the environment, and moda.toml in the working folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moda_cli.errors import UsageError, did_you_mean

FILE = Path("moda.toml")
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Default(NamedTuple):
    """A value as an option takes it, and what set it."""

    value: Any
    source: str


def long_name(option: Any) -> str | None:
    """What an option is called in moda.toml, `fps` of `--fps`; None for what has no default."""
    names = [name.removeprefix("--") for name in option.opts if name.startswith("--")]
    return names[0] if names and names[0] not in ("help", "version", "print-config") else None


def own_defaults(command: str, options: Sequence[Any], commands: Mapping[str, set[str]]) -> dict[
    str, Default
]:  # fmt: skip
    """The defaults of a command's options, by parameter; the environment goes before the file.

    commands: the options of every command by its name. Raises UsageError for a file that cannot be
    read or names what there is not.
    """
    everywhere, here = _tables(command, commands)
    found = {}
    for option in options:
        name = long_name(option)
        if name is None:
            continue
        variable = f"MODA_{name.replace('-', '_').upper()}"
        if given := os.environ.get(variable):
            found[option.name] = Default(_read(option, given, variable), variable)
        elif name in here or name in everywhere:
            value = here.get(name, everywhere.get(name))
            found[option.name] = Default(_read(option, value, str(FILE)), str(FILE))
    return found


def _tables(command: str, commands: Mapping[str, set[str]]) -> tuple[dict[str, Any], ...]:
    """What moda.toml says for all commands, and for this one."""
    if not FILE.exists():
        return {}, {}
    from moda_cli.files import parse_toml

    try:
        tables = parse_toml(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {FILE}: {reason}") from None
    everywhere = {_spelled(key): value for key, value in tables.items() if key not in commands}
    _check(everywhere, set[str]().union(*commands.values()), str(FILE))
    for name in tables.keys() & commands.keys():
        if not isinstance(tables[name], dict):
            raise UsageError(f"{FILE}: {name} is no table", hint=f"write [{name}]")
        tables[name] = {_spelled(key): value for key, value in tables[name].items()}
        _check(tables[name], commands[name], f"{FILE}, [{name}]")
    return everywhere, tables.get(command, {})


def _spelled(key: str) -> str:
    return key.replace("_", "-")


def _check(table: Mapping[str, Any], known: set[str], place: str) -> None:
    for key in table.keys() - known:
        raise UsageError(f"{place}: there is no option {key}", hint=did_you_mean(key, known))


def _read(option: Any, value: Any, source: str) -> Any:
    """A value as if it had been given on the command line."""
    if option.is_flag and not option.count:
        if str(value).lower() not in (*YES, *NO):
            raise UsageError(f"{source}: {long_name(option)} is true or false, not {value}")
        return str(value).lower() in YES
    if option.count:
        if not str(value).isdecimal():
            raise UsageError(f"{source}: {long_name(option)} is a whole number, not {value}")
        return int(value)
    if isinstance(value, list) != option.multiple and not isinstance(value, str):
        if isinstance(value, list | dict):
            raise UsageError(f"{source}: {long_name(option)} takes one value, not {value}")
        value = [value]
    return [str(each) for each in value] if option.multiple else str(value)
