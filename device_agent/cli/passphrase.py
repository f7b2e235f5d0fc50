"""Strong random passphrases, to be typed by people: no letters that look alike, in groups, the entropy stated."""

import math
import secrets
from typing import Final

MIN_BITS: Final = 80
MAX_BITS: Final = 1024
DEFAULT_BITS: Final = 128
GROUP: Final = 5  # characters between two dashes
# 32 characters, so 5 bits each; without i, l, o and u, which are misread or make words.
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS_EACH: Final = 5


def passphrase(bits: int) -> tuple[str, int]:
    """A passphrase of at least `bits` bits from the system's generator, and its exact entropy in bits."""
    count = math.ceil(bits / _BITS_EACH)
    letters = "".join(secrets.choice(ALPHABET) for _ in range(count))
    return "-".join(letters[at : at + GROUP] for at in range(0, count, GROUP)), count * _BITS_EACH
