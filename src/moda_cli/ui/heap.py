"""A server's memory, which glibc would let grow with every thread that ever was.

Of 50 clips, each with threads of its own, these two keep all but a few MB. Another C library is
left alone.
"""

import ctypes
from contextlib import suppress

M_ARENA_MAX = -8  # of <malloc.h>
ARENAS = 2


def few_arenas() -> None:
    """Let all threads of this process share a few heaps."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Give what is free back to the system."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
