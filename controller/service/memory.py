"""Keeps the garbage collector out of the hot path: it would look at every device again and again and find nothing."""

import gc
from typing import Final

# Collections after so many new objects (by default 700, 10, 10): a batch makes tens of thousands, and no cycles. The
# last one looks at all devices that changed since the start.
_YOUNG: Final = 50_000
_MIDDLE: Final = 20
_OLD: Final = 1000


def settle() -> None:
    """What is there now stays; look for garbage rarely. To be called once, when everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
