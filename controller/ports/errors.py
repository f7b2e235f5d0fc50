"""The error families of the ports: an adapter raises only its own, always from the cause."""


class ControllerError(Exception):
    """The root of every error that an operator may see; `str()` is the text they see."""


class SettingsError(ControllerError):
    """A configuration that cannot be used; the text names file and key."""


class StoreError(ControllerError):
    """The store did not do what was asked; nothing of the batch was kept."""


class StoreFullError(StoreError):
    """No room left where the store lives; work waits until there is."""


class BrokerError(ControllerError):
    """The broker's management API did not do what was asked.

    Attributes:
        transient: trying again later may help (no answer, 5xx, a node down).
    """

    transient = True


class BrokerUnreachableError(BrokerError):
    """No node of the broker answered in time."""


class BrokerRefusedError(BrokerError):
    """The broker understood and said no: wrong key, bad request, missing right. Trying the same again does not help."""

    transient = False


class BrokerNotFoundError(BrokerError):
    """What was asked about is not there (a client, a ban, a rule)."""

    transient = False


class BrokerConflictError(BrokerError):
    """It is there already."""

    transient = False


class BrokerAnswerError(BrokerError):
    """The answer made no sense (not JSON, wrong shape, cut off)."""


class MessagesError(ControllerError):
    """The MQTT link could not do what was asked."""


class NoSubscriberError(MessagesError):
    """The broker took the message and had nobody to give it to (MQTT 5 reason 16): the device has no session."""
