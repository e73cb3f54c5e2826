"""What every command does before its own work: help under headings, defaults, plain complaints."""

from typing import Any

import typer
from typer.core import TyperCommand

from moda_cli.cli.defaults import FILE, Default, long_name, own_defaults
from moda_cli.errors import UsageError

WIDTH = 100  # of help, in columns
COLUMN = 24  # at most, of the options' names
OTHER = "Options"
HELP_NAMES = ["-h", "--help"]
HELP: dict[str, Any] = {"help_option_names": HELP_NAMES, "max_content_width": WIDTH}


class Headings:
    """Help whose options stand under headings, with examples below."""

    epilog: str | None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options under their headings, in the order in which these first appear."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in ctx.command.get_params(ctx):
            title = getattr(param, "rich_help_panel", None) or OTHER
            if not getattr(param, "hidden", False):
                panels.setdefault(title, []).append(described(param))
        names = [name for rows in panels.values() for name, _ in rows]
        width = max(len(name) for name in names if len(name) <= COLUMN)
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), told) for name, told in rows], width)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Lines as they are written: examples."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(f"{self.epilog.strip()}\n")


class Command(Headings, TyperCommand):
    """A command whose options stand under headings, and may have defaults of the user's own."""

    allow_extra_args = True  # they are refused in our own words

    @property
    def options(self) -> list[Any]:
        """Its parameters that are given by name."""
        return [param for param in self.params if param.param_type_name == "option"]

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Raises UsageError for arguments that fit nowhere, and for defaults that cannot be."""
        siblings = getattr(parent and parent.command, "commands", {})
        names = {
            name: {long for option in command.options if (long := long_name(option))}
            for name, command in siblings.items()
        }
        only_asks = set(args) & set(HELP_NAMES) or extra.get("resilient_parsing")
        found = {} if only_asks else own_defaults(self.name or "", self.options, names)
        extra["default_map"] = {name: default.value for name, default in found.items()}
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except UsageError as error:
            if source := self._blamed(str(error), found):
                hint = f"{source} sets it; {error.hint}".removesuffix("; ")
                raise UsageError(str(error), hint=hint) from None
            raise
        if context.args and not context.resilient_parsing:
            extra_words = " ".join(context.args)
            hint = "put a name with spaces in quotes"
            raise UsageError(f"there is no place for {extra_words}", hint=hint)
        context.meta["moda.defaults"] = found
        return context

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments by their names, those that may be absent in brackets."""
        named = [param for param in self.params if param.param_type_name == "argument"]
        names = [param.metavar or param.name.upper() for param in named]
        pairs = zip(names, named, strict=True)
        return ["[OPTIONS]", *(n if param.required else f"[{n}]" for n, param in pairs)]

    def _blamed(self, message: str, found: dict[str, Default]) -> str:
        """What set the option that a complaint is about, if it was not the command line."""
        for option in self.options:
            if option.name in found and message.startswith(f"{option.opts[0]} "):
                return found[option.name].source
        return ""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, or print its configuration."""
        root = ctx.find_root().command
        root.as_json = root.as_json or bool(ctx.params.get("as_json"))
        if ctx.params.get("print_config"):
            typer.echo("\n".join(self._configuration(ctx)))
            return None
        if (told := self._from_file(ctx)) and not ctx.params.get("quiet"):
            typer.echo(f"note: {FILE} sets {', '.join(told)}", err=True)
        return super().invoke(ctx)

    def _from_file(self, ctx: Any) -> list[str]:
        """The options that moda.toml decides in this run."""
        sources = {param: default.source for param, default in ctx.meta["moda.defaults"].items()}
        return [
            str(long_name(option))
            for option in self.options
            if sources.get(option.name) == str(FILE) and not _given(ctx, option)
        ]

    def _configuration(self, ctx: Any) -> list[str]:
        """A moda.toml of all that holds for this run, with the source of each line."""
        found: dict[str, Default] = ctx.meta["moda.defaults"]
        rows = []
        for option in self.options:
            if (name := long_name(option)) is None:
                continue
            source = "built in"
            if _given(ctx, option):
                source = "command line"
            elif option.name in found:
                source = found[option.name].source
            value = ctx.params[option.name]
            line = f"# {name} is not set" if value in (None, (), []) else f"{name} = {_toml(value)}"
            rows.append((line, source))
        width = max(len(line) for line, _ in rows)
        return [f"[{self.name}]", *(f"{line.ljust(width)}  # {source}" for line, source in rows)]


def _given(ctx: Any, option: Any) -> bool:
    """Whether an option is on the command line."""
    return bool(ctx.get_parameter_source(option.name).name == "COMMANDLINE")


def _toml(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def described(param: Any) -> tuple[str, str]:
    """How a parameter is written, and what it does."""
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper(), param.help or ""
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        names = f"{names} / {param.secondary_opts[0]}"
    elif not (param.is_flag or param.count) and param.metavar:
        names = f"{names} {param.metavar}"
    default = param.default
    if param.is_flag and param.secondary_opts:
        on = param.opts if default else param.secondary_opts
        default = on[0].removeprefix("--")
    elif param.is_flag or param.count or default in ("", (), []):
        default = None
    told = param.help or ""
    if param.required:
        return names, f"{told} [required]"
    return names, told if default is None else f"{told} [default: {_shown(default)}]"


def _shown(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)
