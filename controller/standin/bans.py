"""The ban list with EMQX's rules about time, overwriting and who is affected. Pure: time comes in."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

BanKind = Literal["clientid", "username", "peerhost", "clientid_re", "username_re", "peerhost_net"]
BAN_KINDS: tuple[BanKind, ...] = get_args(BanKind)
RULE_KINDS = frozenset({"clientid_re", "username_re", "peerhost_net"})


class InvalidBanError(ValueError):
    """The ban cannot be made; the text is what EMQX answers."""


@dataclass(frozen=True, slots=True)
class Ban:
    """One row; times are epoch seconds, `until` None means for ever."""

    kind: BanKind
    who: str
    by: str
    reason: str
    at: int
    until: int | None

    def active(self, now: float) -> bool:
        """Whether it still refuses anybody."""
        return self.until is None or self.until > int(now)


def normalise(kind: BanKind, who: str) -> str:
    """Check and canonicalise the subject of a ban.

    Raises:
        InvalidBanError: when it is not an address, a network or a regular expression as its kind demands.
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
    """All rows, those that name somebody apart from those that are searched."""

    named: dict[tuple[BanKind, str], Ban] = field(default_factory=dict)
    rules: dict[tuple[BanKind, str], Ban] = field(default_factory=dict)
    _compiled: dict[str, re.Pattern[str]] = field(default_factory=dict)

    def table(self, kind: BanKind) -> dict[tuple[BanKind, str], Ban]:
        """The table a kind lives in."""
        return self.rules if kind in RULE_KINDS else self.named

    def look_up(self, kind: BanKind, who: str) -> Ban | None:
        """The row, expired or not."""
        return self.table(kind).get((kind, who))

    def create(self, ban: Ban, now: float) -> Ban | None:
        """Insert the row; returns the older one instead when that is still active."""
        old = self.look_up(ban.kind, ban.who)
        if old is not None and old.active(now):
            return old
        table = self.table(ban.kind)
        table.pop((ban.kind, ban.who), None)
        table[(ban.kind, ban.who)] = ban
        if ban.kind in ("clientid_re", "username_re"):
            self._compiled[ban.who] = re.compile(ban.who)
        return None

    def delete(self, kind: BanKind, who: str) -> bool:
        """Remove a row; False when there was none."""
        return self.table(kind).pop((kind, who), None) is not None

    def clear(self) -> None:
        """Remove every row of every owner."""
        self.named.clear()
        self.rules.clear()

    def sweep(self, now: float) -> None:
        """Remove what expired; until then expired rows stay listed."""
        for table in (self.named, self.rules):
            for key in [k for k, b in table.items() if b.until is not None and b.until < int(now)]:
                del table[key]

    def rows(self) -> list[Ban]:
        """Everything that is listed: searched rows first."""
        return [*reversed(self.rules.values()), *reversed(self.named.values())]

    def __len__(self) -> int:
        return len(self.named) + len(self.rules)

    def refuses(self, clientid: str, username: str | None, peerhost: str, now: float) -> bool:
        """Whether a client with this identity is banned at this moment."""
        named: tuple[tuple[BanKind, str | None], ...] = (
            ("clientid", clientid),
            ("username", username),
            ("peerhost", peerhost),
        )
        for kind, who in named:
            ban = None if who is None else self.named.get((kind, who))
            if ban is not None and ban.active(now):
                return True
        if not self.rules:
            return False
        return any(b.active(now) and self._covers(b, clientid, username, peerhost) for b in self.rules.values())

    def _covers(self, ban: Ban, clientid: str, username: str | None, peerhost: str) -> bool:
        if ban.kind == "peerhost_net":
            return _in_network(peerhost, ban.who)
        subject = clientid if ban.kind == "clientid_re" else username
        return subject is not None and self._compiled[ban.who].search(subject) is not None

    def sender_banned(self, clientid: str) -> bool:
        """Whether messages this client left behind are dropped; EMQX asks only whether a row is there."""
        return ("clientid", clientid) in self.named


def _in_network(peerhost: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(peerhost) in ipaddress.ip_network(network)
    except ValueError:
        return False
