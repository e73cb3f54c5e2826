"""A signal lets the work in hand end, and the second does not."""

import signal
import threading

import pytest

from moda_cli.stopping import stopping


def work(signals: list[int], told: list[str]) -> None:
    """Steps with a signal in each, told one by one, until one has asked to stop; then the end."""
    with stopping(lambda: told.append("asked")) as asked:
        for number in signals:
            signal.raise_signal(number)
            told.append("stepped")
        assert asked.signal == signals[0]
        told.append("ended")


def test_the_first_signal_waits_for_the_block() -> None:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work([signal.SIGINT], told)
    assert told == ["asked", "stepped", "ended"]


def test_the_second_signal_ends_the_block() -> None:
    told: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: exit(143))
    try:
        with pytest.raises(SystemExit, match="143"):
            work([signal.SIGTERM, signal.SIGTERM, signal.SIGTERM], told)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == ["asked", "stepped"]


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as asked:
        assert signal.getsignal(signal.SIGINT) is not before
    assert asked.signal == 0
    assert signal.getsignal(signal.SIGINT) is before
    ignoring = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as asked:  # as of a job that a shell has sent to the background
            signal.raise_signal(signal.SIGINT)
        assert asked.signal == 0
    finally:
        signal.signal(signal.SIGINT, ignoring)


def test_another_thread_holds_nothing_back() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
