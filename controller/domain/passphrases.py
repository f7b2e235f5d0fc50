"""Whether a passphrase is strong enough to keep a key that decides what a whole fleet installs."""

import math
from typing import Final

MIN_CHARACTERS: Final = 14
MIN_DIFFERENT: Final = 8  # characters
MIN_BITS: Final = 60.0  # of what an attacker without the key's owner has to guess, as estimated here
MAX_CHARACTERS: Final = 1024
_CLASSES: Final = (("abcdefghijklmnopqrstuvwxyz", 26), ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26), ("0123456789", 10))
_OTHERS: Final = 33
_COMMON: Final = (
    "password", "passphrase", "passwort", "secret", "qwerty", "qwertz", "letmein", "welcome", "admin", "changeme",
    "iloveyou", "cordon", "emqx", "update", "abcdef", "12345", "54321", "asdf", "root", "login",
)  # fmt: skip


def passphrase_weakness(passphrase: str) -> str:
    """What is wrong with it, in words for whoever chose it; empty: nothing that is seen here."""
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
    """A cautious estimate: common words, repetitions and runs such as `abc` or `321` count as one character each."""
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
    # Words in a row are no random letters: whoever types only letters and blanks gets what dictionaries leave.
    is_words = all(c.isalpha() or c in " -_" for c in kept)
    per_character = 2.6 if is_words else math.log2(max(alphabet, 2))
    return len(kept) * per_character
