"""The device agent: reports what a device knows of its own security, and does what a signed command orders."""

from typing import Final

__version__: Final = "0.1.0"
