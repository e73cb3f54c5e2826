"""The faults of tests/support/faults.py that no other test has, each a few times.

Signals, full disks, lost workers and broken downloads have their tests beside what they hit.
"""

import random

import pytest

from faults import FAULTS

SHORT = ("CUDA out of memory", "cache corrupted", "cache shared", "encoder dies")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_after_a_fault_everything_is_as_promised(name: str) -> None:
    assert list(FAULTS[name](1, random.Random(0)))
