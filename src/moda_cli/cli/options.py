"""How commands declare options: under a heading, with one style of values and of complaints."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from moda_cli.errors import UsageError, did_you_mean

Values = Iterable[str] | Callable[[], Iterable[str]]  # for those that take time to list


@dataclass(frozen=True, slots=True)
class Panel:
    """Options that stand together under a heading of a command's help."""

    title: str

    def text(
        self, flag: str, metavar: str, help: str, *more: str, values: Values = (), **given: Any
    ) -> Any:
        """An option that takes text or a path; `values` are what a shell offers for it."""
        return typer.Option(
            flag,
            *more,
            metavar=metavar,
            help=help,
            rich_help_panel=self.title,
            autocompletion=_offering(values) if values else None,
            **given,
        )

    def argument(self, metavar: str, help: str, values: Values = ()) -> Any:
        """What is given without a name."""
        return typer.Argument(
            metavar=metavar,
            help=help,
            rich_help_panel=self.title,
            autocompletion=_offering(values) if values else None,
        )

    def choice(self, flag: str, metavar: str, known: Iterable[str], help: str) -> Any:
        """An option that takes one of a few words."""
        words = tuple(known)

        def parse(given: str) -> str:
            if given not in words:
                hint = did_you_mean(given, words, f"one of {', '.join(words)}")
                raise UsageError(f"{flag} cannot be {given}", hint=hint)
            return given

        told = f"{help.removesuffix('.')}: {' '.join(words)}."
        return self.text(flag, metavar, told, values=words, parser=parse)

    def number(
        self,
        flag: str,
        help: str,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        whole: bool = False,
    ) -> Any:
        """An option that takes a number within limits, ends included."""
        limits = f"{low} to {high}" if high < 1e9 else f"from {low}" if low > -math.inf else ""

        def parse(given: str) -> float:
            try:
                value = int(given) if whole else float(given)
            except ValueError:
                what = "a whole number" if whole else "a number"
                raise UsageError(f"{flag} {given} is not {what}") from None
            if not low <= value <= high:
                raise UsageError(f"{flag} {given} is not in {low}-{high}")
            return value

        told = f"{help.removesuffix('.')} ({limits})." if limits else help
        return self.text(flag, "N", told, parser=parse)

    def switch(self, flag: str, help: str, *more: str, **given: Any) -> Any:
        """An option that is on or off."""
        return typer.Option(flag, *more, help=help, rich_help_panel=self.title, **given)


def _offering(values: Values) -> Callable[[str], list[str]]:
    """A shell's question for what begins so."""

    def offered(incomplete: str) -> list[str]:
        known = values() if callable(values) else values
        return [value for value in known if value.startswith(incomplete)]

    return offered


FILES, MACHINE, BATCH, MESSAGES, HELPED = map(
    Panel, ("Input and output", "Model and machine", "Batch", "Messages", "Options")
)
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
DTYPES = ("auto", "float32", "float16", "bfloat16")
RENDERERS = ("auto", "rig", "liveportrait")

Device = Annotated[
    str, MACHINE.text("--device", "DEVICE", "auto, cpu, cuda, cuda:N or mps.", values=DEVICES)
]
AsJson = Annotated[
    bool, MESSAGES.switch("--json", "Print one JSON object, of a failure too, on stdout.")
]
Quiet = Annotated[bool, MESSAGES.switch("--quiet", "Print errors only.", "-q")]
Verbose = Annotated[
    int, MESSAGES.switch("--verbose", "Show timings; twice: tracebacks too.", "-v", count=True)
]
PrintConfig = Annotated[
    bool,
    MESSAGES.switch("--print-config", "Print every option's value and where it comes from."),
]
