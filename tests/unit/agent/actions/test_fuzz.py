"""Actions that change files of any content: no exception, and a second application changes nothing."""

import json
from typing import Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agent.actions.edit import option, set_option
from device_agent.actions.source import _DISABLE
from device_agent.actions.xinetd_off import disable_service
from device_agent.host import nft

_WORDS: Final = (
    "deb", "http://x.example/d", "[x]", "[", "]", "enabled=1", "enabled = 0", "baseurl=http://x.example/d", "URIs:",
    "URIs: http://x.example/d", "Enabled: yes", "Enabled: no", "#", " ", "\t", "\n", "\n\n", "\n \n", ":", "=",
    "service", "service telnet", "{", "}", "disable = no", "disable=yes", "PASS_MAX_DAYS", "PASS_MAX_DAYS 5", "\x00",
    "\u2028", "é",
)  # fmt: skip
_TEXT: Final = st.lists(st.sampled_from(_WORDS) | st.text(max_size=5), max_size=40).map("".join)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["dport", "accept", "tcp"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["nftables", "chain", "rule", "expr", "match", "left", "right", "payload"]), inner
        )
    ),
    max_leaves=20,
)


@given(_TEXT)
@example("\nURIs: http://x.example/d")
@example(" \n \n \nURIs: http://x.example/d\n")
@settings(deadline=None, max_examples=300)
def test_disabling_package_sources(text: str) -> None:
    for change in _DISABLE.values():
        once = change(text, "http://x.example/d")
        assert change(once, "http://x.example/d") == once
        assert change(text, "http://not.there/") == text


@given(_TEXT)
@example("\nURIs: http://x.example/d")
@example(" \n \n \nURIs: http://x.example/d\n")
@settings(deadline=None, max_examples=300)
def test_disabling_xinetd_services(text: str) -> None:
    once = disable_service(text, "telnet")
    assert disable_service(once, "telnet") == once
    assert disable_service(text, "not-there") == text


@given(_TEXT)
@settings(deadline=None)
def test_setting_options(text: str) -> None:
    once = set_option(text, "PASS_MAX_DAYS", "90", "\t")
    assert option(once, "PASS_MAX_DAYS") == "90"
    assert set_option(once, "PASS_MAX_DAYS", "90", "\t") == once


_MATCH: Final = {"match": {"left": {"payload": {"field": "dport", "protocol": "tcp"}}, "right": 5}}


@given(st.builds(lambda chain, expr: {"nftables": [{"chain": chain}, {"rule": {"expr": expr}}]}, _JSON, _JSON) | _JSON)
@example({"nftables": [{"chain": 5}]})
@example({"nftables": [{"chain": {}}, {"rule": {"expr": [_MATCH, {}]}}]})
@example({"nftables": [{"chain": {}}, {"rule": {"expr": [7]}}]})
@settings(deadline=None)
def test_parsing_nft_tables(value: object) -> None:
    try:
        rules = nft.parse(json.dumps(value))
    except ValueError:
        return
    assert isinstance(rules, nft.NftRules)
