"""The logging callable of services and adapters: a message and its fields."""

from collections.abc import Callable, Mapping

Log = Callable[[str, Mapping[str, object]], None]
