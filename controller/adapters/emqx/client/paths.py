"""Names as pieces of URL paths: refuses names that would climb up the path or match the rows of others."""

import re
from typing import Final
from urllib.parse import quote

from controller.domain.containment.plan import Subject, SubjectKind
from controller.ports.errors import BrokerRefusedError
from schemas.base import DEVICE_ID_PATTERN

MAX_USER_NAME: Final = 256  # characters
_CLIENT_ID: Final = re.compile(DEVICE_ID_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Placeholder(str):
    """Takes the place of a value that only EMQX can tell, where a plan is shown: `<client id>`."""

    __slots__ = ()


def segment(client_id: str) -> str:
    """A client id as a piece of a URL's path.

    Raises:
        BrokerRefusedError: not an id that Cordon acts on. `.` and `..` would climb up the path, and deleting the ban
            of `..` would delete every ban there is; wildcards would make rules for others.
    """
    if isinstance(client_id, Placeholder):
        return client_id
    if _CLIENT_ID.fullmatch(client_id) is None or client_id in {".", ".."}:
        raise BrokerRefusedError("not a client id that Cordon acts on")
    return quote(client_id, safe="")


def user_segment(name: str) -> str:
    """A user name as a piece of a URL's path.

    Raises:
        BrokerRefusedError: empty, too long, with control characters, or a step up the path.
    """
    if not 0 < len(name) <= MAX_USER_NAME or _CONTROL.search(name) or name in {".", ".."}:
        raise BrokerRefusedError(f"not a user name that Cordon acts on: 1 to {MAX_USER_NAME} visible characters")
    return quote(name, safe="")


def subject_segment(subject: Subject) -> str:
    """The subject's name as a piece of a URL's path.

    Raises:
        BrokerRefusedError: not a name that Cordon acts on.
    """
    return segment(subject.name) if subject.kind is SubjectKind.CLIENT else user_segment(subject.name)


def quoted(text: str) -> str:
    """A name from EMQX's own answers, or a topic, as a piece of a URL's path."""
    return text if isinstance(text, Placeholder) else quote(text, safe="")
