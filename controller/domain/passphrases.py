"""Checks passphrases of keys that a whole fleet depends on: the root authority's and those that sign updates."""

import math
from typing import Final

MIN_ROOT_CHARACTERS: Final = 20  # for the root authority's key
MIN_CHARACTERS: Final = 14  # for keys that sign updates
MIN_DIFFERENT: Final = 8  # characters
MIN_BITS: Final = 60.0  # estimated entropy
MAX_CHARACTERS: Final = 1024
_CLASSES: Final = (("abcdefghijklmnopqrstuvwxyz", 26), ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26), ("0123456789", 10))
_OTHERS: Final = 33
_COMMON: Final = (
    "password", "passphrase", "passwort", "secret", "qwerty", "qwertz", "letmein", "welcome", "admin", "changeme",
    "iloveyou", "cordon", "emqx", "update", "abcdef", "12345", "54321", "asdf", "root", "login",
)  # fmt: skip


def root_passphrase_weakness(passphrase: str) -> str:
    """Returns why a passphrase does not protect the root authority's key, empty if it does."""
    if len(passphrase) < MIN_ROOT_CHARACTERS:
        return f"a passphrase has at least {MIN_ROOT_CHARACTERS} characters"
    if len(set(passphrase)) < MIN_ROOT_CHARACTERS // 2:
        return "this passphrase repeats itself"
    return ""


def passphrase_weakness(passphrase: str) -> str:
    """Returns why a passphrase does not protect a key that signs updates, empty if it does."""
    if len(passphrase) > MAX_CHARACTERS or not passphrase.isprintable():
        return f"it has more than {MAX_CHARACTERS} characters, or some that cannot be typed"
    if len(passphrase) < MIN_CHARACTERS:
        return f"it has {len(passphrase)} characters, and fewer than {MIN_CHARACTERS} are guessed"
    if len(set(passphrase)) < MIN_DIFFERENT:
        return f"it has fewer than {MIN_DIFFERENT} different characters"
    bits = estimated_bits(passphrase)
    if bits < MIN_BITS:
        return f"it is guessed too easily (about {bits:.0f} bits, {MIN_BITS:.0f} are needed)"
    return ""


def estimated_bits(passphrase: str) -> float:
    """Returns a cautious estimate; common words, repetitions and runs such as `abc` or `321` count as one character."""
    text = passphrase
    for word in _COMMON:
        start = text.lower().find(word)
        while start >= 0:
            text = text[: start + 1] + text[start + len(word) :]
            start = text.lower().find(word, start + 1)
    kept = "".join(c for i, c in enumerate(text) if i == 0 or abs(ord(c) - ord(text[i - 1])) > 1)
    alphabet = sum(size for letters, size in _CLASSES if any(c in letters for c in kept))
    if any(all(c not in letters for letters, _ in _CLASSES) for c in kept):
        alphabet += _OTHERS
    # Letters and blanks are probably words, which are guessed with a dictionary.
    is_words = all(c.isalpha() or c in " -_" for c in kept)
    per_character = 2.6 if is_words else math.log2(max(alphabet, 2))
    return len(kept) * per_character
