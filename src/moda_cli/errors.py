"""The errors a user can act on. Anything else that escapes is a bug and keeps its traceback."""


class ModaError(Exception):
    """What is wrong, naming the user's value, and in `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


FULL = ("No space left", "quota exceeded")  # the C library's words
FREE_SPACE = "free some space and run the same command again"


def is_disk_full(reason: object) -> bool:
    """Whether an error, or its text, says that there is no room for what was written."""
    return any(words in str(reason) for words in FULL)


class UsageError(ModaError):
    """An option or combination of options that cannot work, or an output that cannot be written."""

    exit_code = 2


class InputError(ModaError):
    """A portrait, sound or motion file the user can fix or replace."""

    exit_code = 3


class WeightsError(ModaError):
    """Weights are missing, of another shape, or corrupt."""

    exit_code = 4


class DeviceError(ModaError):
    """The asked-for device is absent or out of memory."""

    exit_code = 5
