"""EMQX's configuration as text: the recorded form, what may be in it, and texts that are not it."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.emqx.client.hocon import MAX_DEPTH, HoconError, read_hocon
from controller.standin.api.configs import hocon_text

# As recorded on EMQX 5.8.9.
NODE = """node {
  cookie = lab-cookie
  data_dir = "/var/lib/emqx/data"
  db_backend = mnesia
  dist_buffer_size = 8192
  global_gc_interval = disabled
  max_ports = 1048576
  name = "emqx1@127.0.0.1"
  role = core
}
"""


def test_the_recorded_section_is_read() -> None:
    assert read_hocon(NODE)["node"] == {
        "cookie": "lab-cookie",
        "data_dir": "/var/lib/emqx/data",
        "db_backend": "mnesia",
        "dist_buffer_size": 8192,
        "global_gc_interval": "disabled",
        "max_ports": 1_048_576,
        "name": "emqx1@127.0.0.1",
        "role": "core",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 1", 1),
        ("a = true", True),
        ("a : no", "no"),
        ("a = 32MB", "32MB"),
        ("a = 0.0.0.0:1883", "0.0.0.0:1883"),
        ('a = "x # y"', "x # y"),
        ('a = "x \\" \\n \\\\ y"', 'x " \n \\ y'),
        ('a = """two\nlines"""', "two\nlines"),
        ("a = [1, two, [3]]", [1, "two", [3]]),
        ("a = [\n  {b = 1},\n  {b = 2}\n]", [{"b": 1}, {"b": 2}]),
        ("# comment\na { b { c = d } } # comment\n", {"b": {"c": "d"}}),
        ("a {}", {}),
        ("a = {b = 1, c = 2}", {"b": 1, "c": 2}),
    ],
)
def test_values(text: str, value: object) -> None:
    assert read_hocon(text) == {"a": value}


@pytest.mark.parametrize(
    "text", ["a", "a {", "a = [1", "}", "a = }", "= 1", 'a = "open', "{" * 99, "a = " + "[" * (MAX_DEPTH + 2)]
)
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(HoconError):
        read_hocon(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_is_an_error(text: str) -> None:
    with contextlib.suppress(HoconError):
        read_hocon(text)


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
_VALUES = st.recursive(
    st.booleans() | st.integers(0, 10**9) | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1),
    lambda inner: (
        st.lists(inner.filter(lambda item: not isinstance(item, dict)), max_size=3)
        | st.dictionaries(_NAMES, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_what_the_stand_in_prints_is_read_back(config: dict[str, Any]) -> None:
    assert _typed(read_hocon(hocon_text(config))) == _typed(config)


def _typed(value: Any) -> Any:
    """The value with the words of booleans and null as such, which their unquoted text cannot be told from."""
    if isinstance(value, dict):
        return {name: _typed(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_typed(part) for part in value]
    return {"true": True, "false": False, "null": None}.get(value, value) if isinstance(value, str) else value
