"""Keeps the running agent small: it waits nearly all of its life, and what it needed to start is not needed then."""

import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of glibc's malloc.h
_ARENAS: Final = 1


def keep_small() -> None:
    """Give all threads one heap, where glibc would make one for each: they hardly ever work at the same time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)


def settle() -> None:
    """After the start: return what it needed, and look through the rest no more for what could be freed."""
    give_back()
    gc.freeze()


def give_back() -> None:
    """Return to the system what is not used any more."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
