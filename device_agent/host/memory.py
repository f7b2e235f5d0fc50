"""Keeps the memory of the running agent small: it is idle most of the time, and start-up memory is not needed then."""

import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of glibc's malloc.h
_ARENAS: Final = 1


def limit_malloc_arenas() -> None:
    """Gives all threads one heap, where glibc would make one for each: they hardly ever work at the same time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)


def freeze_gc() -> None:
    """Returns the memory of the start-up, and excludes what remains from garbage collection."""
    trim_heap()
    gc.freeze()


def trim_heap() -> None:
    """Returns unused memory to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
