"""Counters of accepted commands: each key has its own, so that a stolen key does not block the others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.actions import KEYS_INTRODUCE, KEYS_REVOKE
from schemas.commands import MAX_COUNTER_AHEAD, Command

KEY_ACTIONS: Final = frozenset({KEYS_INTRODUCE, KEYS_REVOKE})
_KEY_CHANGES: Final = ":keys"  # ends the space of a key's commands that change keys


def counter_spaces(command: Command, signed_by: Collection[str]) -> frozenset[str]:
    """Returns the counters that a command uses: one for each signing key, and others for changes of keys.

    So whoever has one key for a while, and uses up its counters, neither blocks the commands of another key nor the
    changes of keys that an operator signs.
    """
    end = _KEY_CHANGES if command.action in KEY_ACTIONS else ""
    return frozenset(key + end for key in signed_by)


def is_counter_ahead(command: Command) -> bool:
    """Whether the counter is too far ahead of the time of issue to be one that the controller counted."""
    return command.counter > command.issued_at.timestamp() * 1000 + MAX_COUNTER_AHEAD


@dataclass(frozen=True, slots=True)
class CommandCounters:
    """The highest counter accepted in each space; `floor` is that of a space without one."""

    highest: Mapping[str, int] = field(default_factory=dict)
    floor: int = -1

    def highest_of(self, spaces: Collection[str]) -> int:
        """Returns the counter that a command in these spaces has to exceed.

        One of its keys suffices: the other one may be blocked, and a replay exceeds neither.
        """
        return min((self.highest.get(space, self.floor) for space in spaces), default=self.floor)

    def with_accepted(self, counter: int, spaces: Collection[str]) -> "CommandCounters":
        """Returns the counters after a command with this counter was accepted."""
        raised = {space: max(counter, self.highest.get(space, self.floor)) for space in spaces}
        return CommandCounters({**self.highest, **raised}, self.floor)
