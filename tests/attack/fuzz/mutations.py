"""Ways to damage a message, from its bytes and from its values: each takes randomness and gives bytes."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

Damage = Callable[[random.Random, dict[str, Any]], bytes]

_JUNK: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**300, 0.5, -0.0, 1e308, "", " ",
    "\x00", "a\nb", "\x1b[31m", "\u202e", "\ud7ff", "é" * 40, "../..", "#", "+", "$SYS/#", "' OR 1=1 --", "{{7*7}}",
    "%s%n", "x" * 300, "x" * 2000, [], [[]], [None], {}, {"": ""}, {"v": 1}, [1, "a", None], "1", "true", "null",
    "2026-02-30T99:99:99Z", "sha256:" + "G" * 64,
)  # fmt: skip
_TOKENS: Final = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"0x10",
    b"01",
    b"1" * 5000,
    b"'",
    b"undefined",
)
_BAD_UTF8: Final = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xfe\xff", b"\x80")
_DEEP: Final = (50, 200, 1000, 5000, 30_000)
MEGABYTE: Final = b"x" * 1_000_000
_MEGABYTE_JSON: Final = b'{"v":1,"kind":"full","sections":"' + b"a" * 1_000_000 + b'"}'


def dump(body: Any) -> bytes:
    """JSON as devices write it."""
    return json.dumps(body).encode()


def places(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    found = [path] if path else []
    if isinstance(body, dict):
        for key, value in body.items():
            found += places(value, (*path, key))
    elif isinstance(body, list):
        for index, value in enumerate(body):
            found += places(value, (*path, index))
    return found


def _change(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = _change(body[path[0]], path[1:], value)
    return copy


def wrong_value(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Some value is something else."""
    return dump(_change(body, rand.choice(places(body)), rand.choice(_JUNK)))


def two_wrong_values(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Two are, so that one error does not hide the other."""
    once = _change(body, rand.choice(places(body)), rand.choice(_JUNK))
    return dump(_change(once, rand.choice(places(once)), rand.choice(_JUNK)) if places(once) else once)


def missing(rand: random.Random, body: dict[str, Any]) -> bytes:
    """A field is not there."""
    gone = rand.choice(list(body))
    return dump({key: value for key, value in body.items() if key != gone})


def added(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Fields that nobody knows."""
    return dump({**body, **{f"x{number}": rand.choice(_JUNK) for number in range(rand.choice((1, 50)))}})


def huge_list(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Some value became a list or an object of thousands."""
    size = rand.choice((257, 400, 400, 3000))
    value: Any = rand.choice(([0] * size, [{}] * size, {str(n): n for n in range(size)}))
    return dump(_change(body, rand.choice(places(body)), value))


def twice(rand: random.Random, body: dict[str, Any]) -> bytes:
    """A key comes twice, with different values."""
    key = rand.choice(list(body))
    return dump(body)[:-1] + b"," + dump({key: rand.choice(_JUNK)})[1:]


def token(rand: random.Random, body: dict[str, Any]) -> bytes:
    """A number that JSON does not have."""
    raw = dump(_change(body, rand.choice(places(body)), "@@"))
    return raw.replace(b'"@@"', rand.choice(_TOKENS), 1)


def cut(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Only the beginning arrived."""
    raw = dump(body)
    return raw[: rand.randrange(len(raw))]


def flipped(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Some bytes are others."""
    raw = bytearray(dump(body))
    for _ in range(rand.choice((1, 1, 2, 8))):
        raw[rand.randrange(len(raw))] = rand.randrange(256)
    return bytes(raw)


def bad_utf8(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Bytes that are no text, also inside one."""
    raw = dump(_change(body, rand.choice(places(body)), "@@"))
    return raw.replace(b"@@", rand.choice(_BAD_UTF8), 1)


def deep(rand: random.Random, body: dict[str, Any]) -> bytes:
    """Brackets in brackets, closed or not."""
    depth = rand.choice(_DEEP)
    opening, closing = rand.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nest = opening * depth + b"1" + closing * rand.choice((0, depth))
    raw = dump(_change(body, rand.choice(places(body)), "@@"))
    return rand.choice((nest, raw.replace(b'"@@"', nest, 1)))


def noise(rand: random.Random, _body: dict[str, Any]) -> bytes:
    """Not a message at all."""
    return rand.choice(
        (b"", b"\x00", b"null", b"[]", b"1", b'""', b"\xef\xbb\xbf{}", rand.randbytes(rand.randrange(1, 400)))
    )


def too_large(rand: random.Random, _body: dict[str, Any]) -> bytes:
    """A megabyte."""
    return rand.choice((MEGABYTE, _MEGABYTE_JSON))


def as_it_is(_rand: random.Random, body: dict[str, Any]) -> bytes:
    """No damage: what is wrong, if anything, is in the values."""
    return dump(body)


DAMAGES: Final[tuple[Damage, ...]] = (
    wrong_value, wrong_value, two_wrong_values, missing, added, huge_list, twice, token, cut, flipped, bad_utf8, deep,
    noise, too_large, as_it_is,
)  # fmt: skip
