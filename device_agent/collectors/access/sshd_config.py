"""The grammar of sshd_config(5): words, quotes, comments, includes, Match blocks."""

import re
from dataclasses import dataclass, field
from typing import Final

from device_agent.host.files import MAX_FILE_BYTES
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

CONFIG: Final = "/etc/ssh/sshd_config"
CONFIGS: Final = (CONFIG, "/usr/etc/ssh/sshd_config")  # the first that exists, as in openSUSE
# Defaults of current versions; a distribution's build may differ.
DEFAULTS: Final = {
    "passwordauthentication": "yes",
    "kbdinteractiveauthentication": "yes",
    "permitrootlogin": "prohibit-password",
    "permitemptypasswords": "no",
    "maxauthtries": "6",
    "logingracetime": "120",
    "x11forwarding": "no",
}
_RENAMED: Final = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "skeyauthentication": "kbdinteractiveauthentication",
}
MATCH_KEYWORDS: Final = frozenset(DEFAULTS) - {"logingracetime"}  # reported when a Match block sets them
_FLAGS: Final = ("passwordauthentication", "kbdinteractiveauthentication", "permitemptypasswords", "x11forwarding")
_VALUES: Final = {
    **dict.fromkeys(_FLAGS, re.compile(r"yes|no")),
    "permitrootlogin": re.compile(r"yes|no|(prohibit|without)-password|forced-commands-only"),
    "maxauthtries": re.compile(r"\d{1,9}"),
    "logingracetime": re.compile(r"\d(?:[smhdw]?\d)*[smhdw]?"),
    "port": re.compile(r"\d{1,9}"),
}
# They restrict who logs in and how, or widen it in a Match block.
LOGIN_RESTRICTIONS: Final = (*("authenticationmethods", "denyusers", "allowusers", "denygroups", "allowgroups"),)
ALGORITHMS: Final = (
    *("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"),
    *("pubkeyacceptedkeytypes", "hostbasedacceptedalgorithms"),
)
_MAX_DEPTH: Final = 16  # nested includes, as in sshd
_MAX_BLOCKS: Final = 256
# The keyword ends at white space or at one equals sign; a quoted keyword is allowed.
_NAME: Final = re.compile(r"[a-z0-9]+")
_KEYWORD: Final = re.compile(r'^(?:"([^"]*)"|([^\s="]+))(?:[ \t]*=[ \t]*|[ \t]+|(?=")|$)')


@dataclass(frozen=True, slots=True)
class MatchBlock:
    """The settings of one Match block that are reported; `criteria` are words such as `user`, `bob`, none for `all`."""

    title: str
    criteria: tuple[str, ...]
    values: dict[str, str]


@dataclass(slots=True)
class SshdSettings:
    """The settings in the files; the first value of a keyword counts, as in sshd. Values are in lower case."""

    of_file: dict[str, str] = field(default_factory=dict)
    of_all: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    algorithms: dict[str, str] = field(default_factory=dict)
    restrictions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: list[MatchBlock] = field(default_factory=list)
    global_gaps: GapRecorder = field(default_factory=GapRecorder)
    match_gaps: GapRecorder = field(default_factory=GapRecorder)

    @property
    def values(self) -> dict[str, str]:
        """The settings that apply to every connection, without the defaults."""
        return {**self.of_file, **self.of_all}


def read_settings(system: System, path: str = CONFIG) -> SshdSettings:
    """Reads a file and its includes."""
    settings = SshdSettings()
    path = next((one for one in CONFIGS if system.path(one).exists()), path) if path == CONFIG else path
    _read(system, path, settings, IncludeBudget(system, _MAX_DEPTH), 0, None)
    return settings


def _read(
    system: System, path: str, settings: SshdSettings, budget: IncludeBudget, depth: int, block: MatchBlock | None
) -> None:
    """Reads a file; a Match block in it ends with it, and `block` is the one that includes it."""
    gaps = settings.match_gaps if block else settings.global_gaps
    text, is_whole = "", True
    with gaps.capture(path):
        text, is_whole = budget.beginning(system.path(path), depth)
    if not is_whole:
        gaps.add(f"only the first {MAX_FILE_BYTES} bytes were read", path)
    outer = block
    for number, line in enumerate(text.splitlines(), start=1):
        directive = _directive(line)
        source = f"{path}:{number}"
        gaps = settings.match_gaps if block else settings.global_gaps
        if directive is None:
            continue
        keyword, words = directive
        if words is None or (not words and keyword != "match"):
            gaps.add("not understood", source)
        elif keyword == "match":
            block = _begin_block(words, settings, source, outer)
        elif keyword == "include":
            if depth >= _MAX_DEPTH:
                gaps.add("too many nested includes", source)
                continue
            for word in words:
                included_files: list[str] = []
                with gaps.capture(source):
                    included_files = budget.matching(word if word.startswith("/") else f"/etc/ssh/{word}")
                for included in included_files:
                    _read(system, included, settings, budget, depth + 1, block)
        else:
            _set(keyword, words, settings, block, source)


def _begin_block(words: list[str], settings: SshdSettings, source: str, outer: MatchBlock | None) -> MatchBlock:
    criteria = tuple(word for word in _lowered(words) if word != "all")
    title = " ".join(words)
    if outer:
        criteria, title = (*outer.criteria, *criteria), f"{outer.title} {title}"
    block = MatchBlock(title, criteria, {})
    if len(settings.blocks) >= _MAX_BLOCKS or not words:
        settings.match_gaps.add("too many Match blocks" if words else "not understood", source)
    elif criteria:
        settings.blocks.append(block)
    return block


def _lowered(words: list[str]) -> list[str]:
    # The names of criteria are case-insensitive, their patterns are not. `User=bob` is as good as `User bob`.
    parts: list[str] = []
    for word in words:
        name, equals, pattern = word.partition("=")
        parts += [name, pattern] if equals and len(parts) % 2 == 0 else [word]
    return [part.lower() if at % 2 == 0 else part for at, part in enumerate(parts)]


def _set(keyword: str, words: list[str], settings: SshdSettings, block: MatchBlock | None, source: str) -> None:
    value = words[0].lower() if words else ""
    if keyword in _VALUES and (len(words) != 1 or not _VALUES[keyword].fullmatch(value)):
        gaps = settings.match_gaps if block else settings.global_gaps
        gaps.add(f"not understood: {keyword}", source)
        return
    if block is not None and keyword in MATCH_KEYWORDS:
        # `Match all` takes precedence over what the rest of the file sets, as every block that matches.
        (block.values if block.criteria else settings.of_all).setdefault(keyword, value)
    if keyword in LOGIN_RESTRICTIONS and block is not None:
        is_open = keyword != "authenticationmethods" or any("publickey" not in word.lower() for word in words)
        if is_open or not block.criteria:
            gaps = settings.match_gaps if block.criteria else settings.global_gaps
            gaps.add(f"not read in a Match block: {keyword}", source)
    if block is not None and block.criteria:
        return
    if keyword in ALGORITHMS:
        settings.algorithms.setdefault(keyword, value)
    elif keyword in LOGIN_RESTRICTIONS:
        # Several lists of users add up, of the methods the first line counts.
        before = settings.restrictions.get(keyword, ())
        is_first_only = keyword == "authenticationmethods" and before
        settings.restrictions[keyword] = before if is_first_only else (*before, *words)
    elif keyword == "port":
        settings.ports.append(value)
    elif keyword in DEFAULTS or keyword == "usepam":
        settings.of_file.setdefault(keyword, value)


def _directive(line: str) -> tuple[str, list[str] | None] | None:
    """Returns keyword and words of a line; None for a blank line or a comment; words are None for open quotes."""
    bare = line.strip(" \t\r\f")
    if not bare or bare.startswith("#"):
        return None
    match = _KEYWORD.match(bare)
    if match is None:
        return "", None
    keyword = (match[1] or match[2] or "").lower()
    if _NAME.fullmatch(keyword) is None:
        return "", None
    return _RENAMED.get(keyword, keyword), _words(bare[match.end() :])


def _words(text: str) -> list[str] | None:
    """Splits as sshd does: quotes of both kinds, escaped quotes and blanks, a comment at the start of a word."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, quote = "", ""
        while at < len(text) and (quote or text[at] not in " \t"):
            sign = text[at]
            following = text[at + 1] if at + 1 < len(text) else ""
            if sign == "\\" and (following in {"'", '"', "\\"} or (not quote and following == " ")):
                word += following
                at += 1
            elif quote:
                word, quote = (word, "") if sign == quote else (word + sign, quote)
            elif sign in {"'", '"'}:
                quote = sign
            else:
                word += sign
            at += 1
        if quote:
            return None
        words.append(word)
    return words


def sample_of(criteria: tuple[str, ...]) -> str | None:
    """Returns a connection that meets the criteria, for `sshd -T -C`; None where none can be given."""
    names = {"user": "user", "host": "host", "address": "addr", "localaddress": "laddr", "localport": "lport"}
    values = {"user": "nobody", "host": "localhost", "addr": "127.0.0.1", "laddr": "127.0.0.1", "lport": "22"}
    if len(criteria) % 2:
        return None
    for name, patterns in zip(criteria[::2], criteria[1::2], strict=True):
        positive = [one for one in patterns.split(",") if one and not one.startswith("!")]
        if name not in names or not positive:
            return None
        value = positive[0].partition("/")[0].replace("*", "x").replace("?", "x")
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
            return None
        values[names[name]] = value
    return ",".join(f"{key}={value}" for key, value in values.items())
