"""Who acts, and which of them count as one person where a decision needs two. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

KINSHIP: Final = 86_400.0  # seconds in which an account counts as the person who made it
MAX_GENERATIONS: Final = 16  # accounts made one by another within `KINSHIP`
UNOWNED: Final = "unowned"  # the key of all tokens that belong to no account: nobody knows whose they are

RESERVED_NAMES: Final = frozenset({"machine", "init"})  # `operator:` of these is the controller's machine itself

_ACCOUNT: Final = "account:"
_OPERATOR: Final = "operator:"
_PERSON: Final = "person:"


def account_key(account_id: str) -> str:
    """The key of a person who has an account, whatever the credential."""
    return f"{_ACCOUNT}{account_id}"


def person_key(key: str) -> str:
    """The key of a person for a stored key: before there were accounts, it named a token."""
    return key if key.startswith(_ACCOUNT) else UNOWNED


def is_operator(actor: str) -> bool:
    """Whether an actor, as audit lines name it, is a person and no policy or rollout."""
    return actor.startswith((_OPERATOR, _PERSON))


def is_reserved(name: str) -> bool:
    """Whether a token of this name would stand in the audit as somebody on the controller's machine."""
    return name.casefold() in RESERVED_NAMES


@dataclass(frozen=True, slots=True)
class MakingRecord:
    """A link to the maker of a credential or an account: its key, its name then, and when (Unix seconds)."""

    key: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who acts with a credential.

    `key`: of the account, or `UNOWNED`; it is never given to another account, unlike `name`, which is that of the
    token, or of the account in a session. `makers`: who made the account, who made that one, and so on: the makers stay
    known after they are gone. `credential`: the token (`KEY_DIGITS` of its digest), empty in a session.
    """

    key: str
    name: str
    makers: tuple[MakingRecord, ...] = ()
    credential: str = ""
    in_session: bool = False

    @property
    def actor(self) -> str:
        """As audit lines name it."""
        return f"{_PERSON if self.in_session else _OPERATOR}{self.name}"

    @property
    def standing(self) -> str:
        """What has to be valid still for a request of this principal: its token, or its account."""
        return self.credential or self.key

    def keys_at(self, now: float) -> frozenset[str]:
        """Keys of all who count as this person at `now`: its own, and its makers' while the links are fresh."""
        return frozenset((person_key(self.key), *(person_key(maker.key) for maker in self._fresh_makers(now))))

    def is_same_person(self, other: "Principal", now: float) -> bool:
        """Whether the two count as one person: one made the other, or the same one made both, within `KINSHIP`."""
        return not self.keys_at(now).isdisjoint(other.keys_at(now))

    def makers_of_new(self, now: float) -> tuple[MakingRecord, ...]:
        """The `makers` of an account that this one makes now; links that no longer count are left out."""
        return (MakingRecord(self.key, self.name, now), *self._fresh_makers(now))

    def _fresh_makers(self, now: float) -> Iterator[MakingRecord]:
        return (maker for maker in self.makers if now - maker.at < KINSHIP)


def joined_makers(
    new: tuple[MakingRecord, ...], before: tuple[MakingRecord, ...], now: float
) -> tuple[MakingRecord, ...]:
    """Returns `new` makers with those of `before` that still count at `now`, the latest first, one for each key.

    A new link never hides an earlier one: whoever made the account may still have a session of it.
    """
    if not new:
        return before
    latest: dict[str, MakingRecord] = {}
    for maker in (*new, *before):
        there = latest.get(maker.key)
        if now - maker.at < KINSHIP and (there is None or there.at < maker.at):
            latest[maker.key] = maker
    return tuple(sorted(latest.values(), key=lambda maker: -maker.at))
