"""The clients of the controllers themselves at the broker: no devices, and never contained."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.ports.controllers import ControllerRecord


@dataclass(slots=True)
class OwnClients:
    """The MQTT client ids and user names of every controller on this store; `ids` has this one's first.

    Everybody who compares holds this object: a controller that starts later is added to it.
    """

    ids: dict[str, None] = field(default_factory=dict)  # in order
    usernames: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, client_id: str, username: str | None = None) -> "OwnClients":
        """Those of this controller alone."""
        return cls({client_id: None}, set() if username is None else {username})

    def add(self, records: Iterable[ControllerRecord]) -> None:
        """Adds the clients of controllers; none is ever taken away while this process runs."""
        for one in records:
            self.ids.setdefault(one.client_id)
            if one.username:
                self.usernames.add(one.username)

    def among(self, names: Iterable[str]) -> list[str]:
        """Returns which of these client ids are a controller's."""
        return [name for name in names if name in self.ids]
