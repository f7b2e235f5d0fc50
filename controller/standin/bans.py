"""The ban list, with EMQX's rules for expiry, overwriting and matching. Pure: the caller passes the time."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

BanKind = Literal["clientid", "username", "peerhost", "clientid_re", "username_re", "peerhost_net"]
BAN_KINDS: tuple[BanKind, ...] = get_args(BanKind)
RULE_KINDS = frozenset({"clientid_re", "username_re", "peerhost_net"})


class InvalidBanError(ValueError):
    """The ban is invalid; the text is EMQX's error."""


@dataclass(frozen=True, slots=True)
class Ban:
    """A row; times are Unix times, `until` None means infinity."""

    kind: BanKind
    who: str
    by: str
    reason: str
    at: int
    until: int | None

    def active(self, now: float) -> bool:
        """Whether the ban has not expired."""
        return self.until is None or self.until > int(now)


def normalise(kind: BanKind, who: str) -> str:
    """Validates and canonicalises the subject of a ban.

    Raises:
        InvalidBanError: not an address, a network or a regular expression, as the kind requires.
    """
    if kind == "peerhost":
        try:
            return str(ipaddress.ip_address(who))
        except ValueError as error:
            raise InvalidBanError('"bad peerhost"') from error
    if kind == "peerhost_net":
        try:
            network = ipaddress.ip_network(who, strict=False)
        except ValueError as error:
            raise InvalidBanError("einval") from error
        return str(network)
    if kind in ("clientid_re", "username_re"):
        try:
            re.compile(who)
        except re.error as error:
            raise InvalidBanError(f'{{"{error.msg}",{error.pos or 0}}}') from error
    return who


@dataclass(slots=True)
class BanList:
    """All rows: those with an exact subject apart from patterns."""

    exact: dict[tuple[BanKind, str], Ban] = field(default_factory=dict)
    patterns: dict[tuple[BanKind, str], Ban] = field(default_factory=dict)
    _compiled: dict[str, re.Pattern[str]] = field(default_factory=dict)

    def table(self, kind: BanKind) -> dict[tuple[BanKind, str], Ban]:
        """Returns the table of a kind."""
        return self.patterns if kind in RULE_KINDS else self.exact

    def get(self, kind: BanKind, who: str) -> Ban | None:
        """Returns the row, expired or not."""
        return self.table(kind).get((kind, who))

    def create(self, ban: Ban, now: float) -> Ban | None:
        """Inserts the row; if an active one exists, returns that instead."""
        old = self.get(ban.kind, ban.who)
        if old is not None and old.active(now):
            return old
        table = self.table(ban.kind)
        table.pop((ban.kind, ban.who), None)
        table[(ban.kind, ban.who)] = ban
        if ban.kind in ("clientid_re", "username_re"):
            self._compiled[ban.who] = re.compile(ban.who)
        return None

    def delete(self, kind: BanKind, who: str) -> bool:
        """Removes a row; returns False when there is none."""
        return self.table(kind).pop((kind, who), None) is not None

    def clear(self) -> None:
        """Removes all rows."""
        self.exact.clear()
        self.patterns.clear()

    def remove_expired(self, now: float) -> None:
        """Removes expired rows, which are listed until then."""
        for table in (self.exact, self.patterns):
            for key in [k for k, b in table.items() if b.until is not None and b.until < int(now)]:
                del table[key]

    def rows(self) -> list[Ban]:
        """Returns all rows in EMQX's order: patterns first."""
        return [*reversed(self.patterns.values()), *reversed(self.exact.values())]

    def __len__(self) -> int:
        return len(self.exact) + len(self.patterns)

    def is_banned(self, clientid: str, username: str | None, peerhost: str, now: float) -> bool:
        """Whether a client with this identity is banned at `now`."""
        subjects: tuple[tuple[BanKind, str | None], ...] = (
            ("clientid", clientid),
            ("username", username),
            ("peerhost", peerhost),
        )
        for kind, who in subjects:
            ban = None if who is None else self.exact.get((kind, who))
            if ban is not None and ban.active(now):
                return True
        if not self.patterns:
            return False
        return any(b.active(now) and self._matches(b, clientid, username, peerhost) for b in self.patterns.values())

    def _matches(self, ban: Ban, clientid: str, username: str | None, peerhost: str) -> bool:
        if ban.kind == "peerhost_net":
            return _in_network(peerhost, ban.who)
        subject = clientid if ban.kind == "clientid_re" else username
        return subject is not None and self._compiled[ban.who].search(subject) is not None

    def sender_banned(self, clientid: str) -> bool:
        """Whether queued messages of this client are dropped; EMQX checks for a row, not for its expiry."""
        return ("clientid", clientid) in self.exact


def _in_network(peerhost: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(peerhost) in ipaddress.ip_network(network)
    except ValueError:
        return False
