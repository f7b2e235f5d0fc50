"""Addresses are printed as URLs have them, IPv6 ones in brackets."""

from urllib.parse import urlsplit

import pytest

from controller.adapters.probes import look, probe_context
from controller.service.settings.base import host_of, port_of, shown_address


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "2001:db8::1", "localhost"])
def test_shown_address_is_read_back(host: str) -> None:
    shown = shown_address(host, 8480)
    assert (host_of(shown), port_of(shown)) == (host, 8480)
    parts = urlsplit(f"https://{shown}")
    assert (parts.hostname, parts.port) == (host, 8480)


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]:1"), ("127.0.0.1", "127.0.0.1:1")])
async def test_probe_names_an_address_as_a_url_has_it(host: str, shown: str) -> None:
    found = await look(host, 1, probe_context(None, None))
    assert f"no TLS handshake with {shown} from here" in found.trouble
