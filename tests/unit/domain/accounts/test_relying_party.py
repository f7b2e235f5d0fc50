"""At which addresses passkeys are taken; what a request says of its host is not believed."""

import pytest

from controller.domain.accounts.relying_party import RelyingParty, origin_of, relying_party

CONFIGURED = "https://cordon.example.org:8480"


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("https", "cordon.example.org:8480", CONFIGURED),
        ("https", "Cordon.Example.org:443", "https://cordon.example.org"),
        ("http", "localhost:80", "http://localhost"),
        ("http", "[::1]:8480", "http://[::1]:8480"),
        ("http", "", None),
        ("http", "a@localhost", None),
        ("http", "localhost/x", None),
        ("http", "localhost:port", None),
        ("http", "[::1", None),
        ("http", "x" * 300, None),
        ("ftp", "localhost", None),
    ],
)
def test_origin_of_a_request(scheme: str, host: str, origin: str | None) -> None:
    assert origin_of(scheme, host) == origin


def test_localhost_and_the_configured_address_take_passkeys() -> None:
    assert relying_party("http://localhost:8480", None) == RelyingParty("localhost", "http://localhost:8480")
    assert relying_party(CONFIGURED, CONFIGURED) == RelyingParty("cordon.example.org", CONFIGURED)


@pytest.mark.parametrize(
    ("origin", "configured", "reason"),
    [
        (None, None, "names none"),
        ("http://127.0.0.1:8480", None, "opened at the address 127.0.0.1"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]", "opened at the address 2001:db8::1"),
        ("https://cordon.example.org", None, "accounts.url"),
        ("https://cordon.example.org", CONFIGURED, "accounts.url"),
        ("https://evil.example", CONFIGURED, "accounts.url"),
        ("http://cordon.example.org", "http://cordon.example.org", "HTTPS"),
    ],
)
def test_other_addresses_do_not_and_say_why(origin: str | None, configured: str | None, reason: str) -> None:
    found = relying_party(origin, configured)
    assert isinstance(found, str)
    assert reason in found
