"""The error families of the ports: an adapter raises only its own family, always from the cause."""

from collections.abc import Collection


class ControllerError(Exception):
    """The root of every error that an operator may see; `str()` is its text."""


class SettingsError(ControllerError):
    """The configuration cannot be used; the text names file and key."""


class StoreError(ControllerError):
    """The store failed; nothing of the commit was stored."""


class StoreFullError(StoreError):
    """The store's file system is full; commits wait until there is room."""


class ConflictError(StoreError):
    """Another controller changed what a commit was decided on; nothing of that commit was stored.

    Attributes:
        devices: those whose stored version is another.
        guards: the guards' version is another.
        policies: decided by policies of an earlier epoch.
    """

    def __init__(self, devices: Collection[str] = (), *, guards: bool = False, policies: bool = False) -> None:
        self.devices = frozenset(devices)
        self.guards = guards
        self.policies = policies
        changed = [f"devices ({len(self.devices)})"] if self.devices else []
        changed += [name for name, is_other in (("guards", guards), ("policies", policies)) if is_other]
        super().__init__(f"another controller has changed: {', '.join(changed)}")


class UnknownRowError(ControllerError):
    """The row that a page was to begin after is gone; a caller begins again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no row {key!r} to go on after: begin again with the first page")


class BrokerError(ControllerError):
    """The broker's management API failed or refused.

    Attributes:
        transient: a retry may help (no answer, 5xx, a node down).
    """

    transient = True


class BrokerUnreachableError(BrokerError):
    """No node of the broker answered in time."""


class BrokerWaitsError(BrokerUnreachableError):
    """The node that was asked answers, but this call waits for another node; it may have had its effect."""


class BrokerLeaseError(BrokerError):
    """Nothing was sent: the lease is over, and another controller may act instead of this one."""

    transient = False


class BrokerRefusedError(BrokerError):
    """The broker refused: wrong key, bad request, missing right. A retry does not help."""

    transient = False


class BrokerNotFoundError(BrokerError):
    """The client, ban or rule does not exist."""

    transient = False


class BrokerConflictError(BrokerError):
    """The row exists already."""

    transient = False


class BrokerAnswerError(BrokerError):
    """The answer is malformed: not JSON, of the wrong shape, or cut off."""


class MessagesError(ControllerError):
    """The MQTT connection failed."""


class NoSubscriberError(MessagesError):
    """The broker accepted the message and had no subscriber (MQTT 5 reason 16): the device has no session."""
