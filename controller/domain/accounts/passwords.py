"""What may be a password: long and not guessed first; nothing is asked of its characters."""

import unicodedata
from collections.abc import Collection
from typing import Final

MIN_PASSWORD: Final = 12  # characters
MAX_PASSWORD: Final = 256  # characters
_MIN_NAME: Final = 4  # characters of a login name that a password must not rest on


class WeakPasswordError(ValueError):
    """It cannot be a password; the text says why."""


def normalized(password: str) -> str:
    """Returns the same text however a keyboard composes it (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, name: str, common: Collection[str]) -> None:
    """Checks a new password of the account `name`; `common`: passwords in small letters that are guessed first.

    One that is common but for digits and signs around it, or that repeats a short text, is common too.

    Raises:
        WeakPasswordError: it is too short, too long, too common, or rests on the login name.
    """
    text = normalized(password)
    if len(text) < MIN_PASSWORD:
        raise WeakPasswordError(f"a password has at least {MIN_PASSWORD} characters")
    if len(text) > MAX_PASSWORD:
        raise WeakPasswordError(f"a password has at most {MAX_PASSWORD} characters")
    lower, login = text.casefold(), name.casefold()
    repeats = len(_unit(lower)) < MIN_PASSWORD
    if repeats or any(_rests_on(lower, one) for one in _cores(lower) if one in common):
        raise WeakPasswordError("this password is common: it is among those that are guessed first")
    if len(login) >= _MIN_NAME and _rests_on(lower, login) and login in lower:
        raise WeakPasswordError("a password must not rest on the login name")


def _cores(text: str) -> frozenset[str]:
    """The text, what is left without all around its letters, and what that is a repetition of."""
    letters = text.strip("".join(char for char in set(text) if not char.isalpha()))
    return frozenset((text, letters, _unit(letters)))


def _unit(text: str) -> str:
    """The shortest text of which this one is a repetition."""
    return text[: (text + text).find(text, 1)]


def _rests_on(text: str, core: str) -> bool:
    """Whether at least half of a text is this one."""
    return bool(core) and 2 * len(core) * text.count(core) >= len(text)
