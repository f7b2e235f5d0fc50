"""The one logging callable that services and adapters take: a message and its fields."""

from collections.abc import Callable, Mapping

Log = Callable[[str, Mapping[str, object]], None]
