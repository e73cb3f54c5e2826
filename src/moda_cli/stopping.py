"""Ctrl-C and SIGTERM as a wish to end soon; the second time they end at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Asked:
    """Whether to stop: the number of the signal that asked, 0 while none has."""

    signal = 0


@contextmanager
def stopping(on_ask: Callable[[], None] | None = None) -> Iterator[Asked]:
    """Hold back the first SIGINT or SIGTERM until the block ends well, then let it do its work.

    The block looks at `signal` between its steps and ends early; the second signal acts as if there
    were no block. on_ask is called, in the signal's handler, when the first comes. Outside the main
    thread, and for signals that are ignored, nothing is held.
    """
    asked = Asked()
    before: dict[int, Any] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.signal = number
        restore()
        if on_ask:
            on_ask()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()
    if asked.signal:
        signal.raise_signal(asked.signal)
