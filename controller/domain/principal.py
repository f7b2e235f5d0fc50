"""Who acts, and which of them count as one person where a decision needs two. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

KINSHIP: Final = 86_400.0  # seconds in which a token counts as the person who made it
MAX_GENERATIONS: Final = 16  # tokens made one by another within `KINSHIP`


_OPERATOR: Final = "operator:"


def is_operator(actor: str) -> bool:
    """Whether an actor, as audit lines name it, is a person and no policy or rollout."""
    return actor.startswith(_OPERATOR)


@dataclass(frozen=True, slots=True)
class MakingRecord:
    """A link to the maker of a credential: its key, its name then, and when (Unix seconds)."""

    key: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who acts with a credential.

    `key` is never given to another credential, unlike `name`, which is free again once its credential is revoked.
    `makers`: who made the credential, who made that one, and so on: the makers stay known after they are revoked.
    """

    key: str
    name: str
    makers: tuple[MakingRecord, ...] = ()

    @property
    def actor(self) -> str:
        """As audit lines name it."""
        return f"{_OPERATOR}{self.name}"

    def keys_at(self, now: float) -> frozenset[str]:
        """Keys of all who count as this person at `now`: its own, and its makers' while the links are fresh."""
        return frozenset((self.key, *(maker.key for maker in self._fresh_makers(now))))

    def is_same_person(self, other: "Principal", now: float) -> bool:
        """Whether the two count as one person: one made the other, or the same one made both, within `KINSHIP`."""
        return not self.keys_at(now).isdisjoint(other.keys_at(now))

    def makers_of_new(self, now: float) -> tuple[MakingRecord, ...]:
        """The `makers` of a credential that this one makes now; links that no longer count are left out."""
        return (MakingRecord(self.key, self.name, now), *self._fresh_makers(now))

    def _fresh_makers(self, now: float) -> Iterator[MakingRecord]:
        for maker in self.makers:
            if now - maker.at >= KINSHIP:
                return
            yield maker
