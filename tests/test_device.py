"""Switches of the device that belong to the whole process."""

import threading

import pytest
import torch

from moda_cli.device import forbid_tf32, tf32, usable
from moda_cli.errors import DeviceError


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_is_as_it_was_after_an_error_too() -> None:
    before = switches()
    with tf32(True):
        assert switches() == (True, True)
        with pytest.raises(ZeroDivisionError), tf32(False):
            1 / sum(switches())
        assert switches() == (True, True)
    assert switches() == before
    try:
        forbid_tf32()
        assert switches() == (False, False)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_thread_never_sees_the_tf32_of_another() -> None:
    before, seen = switches(), list[tuple[bool, bool]]()
    inside, leave = threading.Event(), threading.Event()

    def exact() -> None:
        inside.wait()
        with tf32(False):
            seen.append(switches())

    thread = threading.Thread(target=exact)
    thread.start()
    with tf32(True):
        inside.set()
        leave.wait(0.05)  # time for the other, were it let in
        assert switches() == (True, True)
        assert not seen
    thread.join()
    assert seen == [(False, False)]
    assert switches() == before


def test_what_cannot_be_compiled_is_said_with_the_ways_out() -> None:
    def half_made(*_: object) -> None:
        raise ImportError("kernel.main.so: file too short")

    compiled = torch.compile(torch.neg, backend=half_made)
    here = usable(torch.device("cpu"), uncompiled="--set compile=false")
    with pytest.raises(DeviceError, match=r"cannot compile .*file too short") as caught, here:
        compiled(torch.ones(2))
    assert "--set compile=false" in caught.value.hint
    assert "torchinductor" in caught.value.hint
    with pytest.raises(RuntimeError, match="another"), usable(torch.device("cpu")):
        raise RuntimeError("another")
