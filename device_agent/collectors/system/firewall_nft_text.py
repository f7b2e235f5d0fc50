"""Reads the text of `nft list ruleset` into the objects of `nft -j list ruleset`, for an nft without JSON support.

Grammar, of what nft prints (it accepts more). [nft(8)]

    ruleset   = { "table" family name "{" { "flags" words | block } "}" }
    block     = ( "chain" | "set" | "map" ) name "{" ... "}" ; any other block is skipped
    base      = "type" word "hook" word [ "device" name | "devices" "=" set ] "priority" priority ";"
                [ "policy" word ";" ]
    rule      = { match | statement } newline
    match     = key { "." key } [ "&" value ] [ operator ] ( values [ "/" values ] | "@" name | set )
              | key { "." key } "vmap" ( "@" name | set )
    key       = "meta" word | "ct" [ direction ] word | header field | "fib" words | "@" base "," offset "," length
    values    = value { "," value }
    set       = "{" element { "," element } "}"
    element   = value { "." value } { option } [ ":" verdict ]

What does not fit becomes an object that the reader of the JSON form does not know either, and so a gap.
"""

from typing import Any, Final

from device_agent.collectors.system.firewall_nft_rule_text import RuleText
from device_agent.collectors.system.firewall_nft_words import NftTokens, read_elements, unquoted

_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}


def nft_objects(text: str) -> list[dict[str, Any]]:
    """Returns the objects of `nft -j list ruleset` for the text of `nft list ruleset`.

    Raises:
        ValueError: the text is no listing of tables.
    """
    tokens = NftTokens(text)
    objects: list[dict[str, Any]] = []
    tokens.skip_blank()
    while tokens.peek():
        word = tokens.take()
        if word.startswith("#"):
            tokens.skip_blank()
            continue
        family, name, brace = tokens.take(), unquoted(tokens.take()), tokens.take()
        if (word, brace) != ("table", "{"):
            raise ValueError("not a listing of nftables")
        table: dict[str, Any] = {"family": family, "name": name}
        objects.append({"table": table})
        _read_table(tokens, table, objects)
        tokens.skip_blank()
    return objects


def _read_table(tokens: NftTokens, table: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    home = {"family": table["family"], "table": table["name"]}
    while True:
        tokens.skip_blank()
        word = tokens.take()
        if word == "":
            raise ValueError("the listing of nftables ends within a table")
        if word == "}":
            return
        if word == "flags":
            table["flags"] = [flag for flag in tokens.rest_of_line() if flag != ","]
            continue
        words = []
        while tokens.peek() not in {"{", "\n", "}", ""}:
            words.append(tokens.take())
        is_block = bool(tokens.take_if("{"))
        if is_block and word in {"chain", "set", "map"} and words:
            read = _read_chain if word == "chain" else _read_set
            read(tokens, {**home, "name": unquoted(words[0])}, word, objects)
        elif is_block and word not in {"chain", "set", "map"}:
            tokens.skip_block()
        elif is_block or word != "comment":
            raise ValueError("not a listing of nftables")


def _read_set(tokens: NftTokens, item: dict[str, Any], kind: str, objects: list[dict[str, Any]]) -> None:
    objects.append({kind: item})
    while True:
        tokens.skip_blank()
        word = tokens.take()
        if word in {"}", ""}:
            return
        if word == "elements" and tokens.take_if("=") and tokens.take_if("{"):
            item["elem"] = read_elements(tokens)
        else:
            tokens.rest_of_line()


def _read_chain(tokens: NftTokens, chain: dict[str, Any], _: str, objects: list[dict[str, Any]]) -> None:
    objects.append({"chain": chain})
    home = {"family": chain["family"], "table": chain["table"], "chain": chain["name"]}
    while True:
        tokens.skip_blank()
        word = tokens.peek()
        if word in {"}", ""}:
            tokens.take()
            return
        if word == "type":
            _read_base(tokens, chain)
        elif word == "policy":
            chain["policy"] = (tokens.rest_of_line()[1:] or ["unknown"])[0]
        elif word in {"comment", "flags"}:
            tokens.rest_of_line()
        else:
            objects.append({"rule": {**home, "expr": RuleText(tokens).statements()}})


def _read_base(tokens: NftTokens, chain: dict[str, Any]) -> None:
    tokens.take()
    chain["type"] = tokens.take()
    while tokens.peek() not in {"\n", ";", "}", ""}:
        word = tokens.take()
        if word == "hook":
            chain["hook"] = tokens.take()
        elif word == "device":
            chain["dev"] = unquoted(tokens.take())
        elif word == "devices":
            tokens.take_if("=")
            chain["dev"] = read_elements(tokens) if tokens.take_if("{") else []
        elif word == "priority":
            chain["prio"] = _priority(tokens.rest_of_line())


def _priority(words: list[str]) -> int:
    total, sign = 0, 1
    for word in words:
        if word in {"+", "-"}:
            sign = 1 if word == "+" else -1
        elif word in _PRIORITIES:
            total += _PRIORITIES[word]
        elif word.lstrip("+-").isdecimal() and len(word) < 12:
            total += sign * int(word)
    return total
