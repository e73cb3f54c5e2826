"""The errors a user can act on. Anything else that escapes is a bug and keeps its traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class ModaError(Exception):
    """What is wrong, naming the user's value, and in `hint` what to do about it.

    Options are written as on the command line; the Python door writes them as arguments.
    """

    exit_code = 1
    kind = "error"  # what a program tells it by

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


FULL = ("No space left", "quota exceeded")  # the C library's words
FREE_SPACE = "free some space and run the same command again"


def is_disk_full(reason: object) -> bool:
    """Whether an error, or its text, says that there is no room for what was written."""
    return any(words in str(reason) for words in FULL)


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names what a mistyped word may have meant, then what is to be said anyway."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.7)
    meant = f"did you mean {names[near[0]]}?" if near else ""
    return " ".join(filter(None, (meant, otherwise)))


class UsageError(ModaError):
    """An option or combination of options that cannot work, or an output that cannot be written."""

    exit_code = 2
    kind = "usage"


class InputError(ModaError):
    """A portrait, sound or motion file the user can fix or replace."""

    exit_code = 3
    kind = "input"


class WeightsError(ModaError):
    """Weights are missing, of another shape, or corrupt."""

    exit_code = 4
    kind = "weights"


class DeviceError(ModaError):
    """The asked-for device is absent or out of memory."""

    exit_code = 5
    kind = "device"
