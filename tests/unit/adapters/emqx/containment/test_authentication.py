"""How strongly clients are authenticated, by the broker's settings."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.adapters.emqx.client.models import ClientRow, ListenerRow, TlsRow
from controller.adapters.emqx.containment.authentication import (
    AuthSettings,
    auth_strength,
    auth_strength_at,
    proves_username,
)
from controller.ports.broker import CLOCK_SLACK, AuthStrength


def settings(*, chain: bool = True, from_cert: bool = True, binds: bool = True, **listener: Any) -> AuthSettings:
    tls = {"verify": "verify_peer", "fail_if_no_peer_cert": True} | listener.pop("tls", {})
    row = ListenerRow(id=listener.pop("id", "ssl:default"), ssl_options=TlsRow(**tls), **listener)
    return AuthSettings(chain, from_cert, {row.id: row}, binds_id=binds)


def mixed(*, chain: bool = False) -> AuthSettings:
    """A listener that requires certificates, and one with the authentication chain."""
    tls = TlsRow(verify="verify_peer", fail_if_no_peer_cert=True)
    rows = (ListenerRow(id="ssl:default", ssl_options=tls), ListenerRow(id="tcp:default"))
    return AuthSettings(chain, True, {row.id: row for row in rows}, binds_id=True)


FREE_NO_USERNAME = replace(settings(from_cert=False, binds=False), checks_username=False)
FREE_WITH_WILDCARD = replace(settings(from_cert=False, binds=False), refuses_wildcard=False)


def client(listener: str = "ssl:default", **more: Any) -> ClientRow:
    return ClientRow(clientid="x", connected=True, listener=listener, **more)


@pytest.mark.parametrize(
    ("facts", "seen", "grade"),
    [
        (settings(), client(), AuthStrength.PROVEN),
        (settings(chain=False), client(), AuthStrength.PROVEN),
        (settings(id="wss:default"), client("wss:default"), AuthStrength.PROVEN),
        (settings(from_cert=False), client(), AuthStrength.KNOWN),
        (settings(tls={"verify": "verify_none"}), client(), AuthStrength.KNOWN),
        (settings(tls={"fail_if_no_peer_cert": False}), client(), AuthStrength.KNOWN),
        (settings(tls={"fail_if_no_peer_cert": False}, chain=False), client(), AuthStrength.CLAIMED),
        (settings(zone="other"), client(), AuthStrength.KNOWN),
        (settings(id="tcp:default"), client("tcp:default"), AuthStrength.KNOWN),
        (settings(), client("tcp:gone"), AuthStrength.KNOWN),
        (settings(chain=False), client("tcp:gone"), AuthStrength.CLAIMED),
        (settings(), client("tcp:gone", enable_authn=False), AuthStrength.CLAIMED),
        (settings(), None, AuthStrength.PROVEN),
        (settings(chain=False, enable_authn=False), None, AuthStrength.PROVEN),
        (settings(from_cert=False), None, AuthStrength.KNOWN),
        (settings(id="tcp:default"), None, AuthStrength.KNOWN),
        (settings(id="tcp:default", chain=False), None, AuthStrength.UNSEEN),
        (settings(id="tcp:default", chain=False, enable=False), None, AuthStrength.UNSEEN),
        (settings(id="tcp:default", enable_authn=False), None, AuthStrength.UNSEEN),
        (AuthSettings(True, True, {}, binds_id=True), None, AuthStrength.KNOWN),
        (AuthSettings(True, True, {}), None, AuthStrength.UNSEEN),
        (settings(from_cert=False, binds=False), client(), AuthStrength.ADMITTED),
        (settings(from_cert=False, binds=False), client(username="y"), AuthStrength.ADMITTED),
        (settings(from_cert=False, binds=False), client(username="x"), AuthStrength.KNOWN),
        (
            replace(settings(from_cert=False, binds=False), checks_username=False),
            client(username="x"),
            AuthStrength.ADMITTED,
        ),
        (
            replace(settings(from_cert=False, binds=False), refuses_wildcard=False),
            client(username="x"),
            AuthStrength.ADMITTED,
        ),
        (replace(mixed(), refuses_wildcard=False), client(), AuthStrength.CLAIMED),
        (replace(settings(), refuses_wildcard=False), client(), AuthStrength.PROVEN),
        (settings(from_cert=False, binds=False), None, AuthStrength.UNSEEN),
        (AuthSettings(True, False, None), None, AuthStrength.UNSEEN),
        (AuthSettings(True, False, None), client(), AuthStrength.ADMITTED),
        (AuthSettings(False, False, None), client(), AuthStrength.CLAIMED),
    ],
)
def test_the_strength_follows_from_the_brokers_settings(
    facts: AuthSettings, seen: ClientRow | None, grade: AuthStrength
) -> None:
    assert auth_strength(facts, seen) is grade


AT_TEN = "2026-11-23T11:04:55.676+00:00"  # as recorded
TEN = datetime(2026, 11, 23, 11, 4, 55, 676000, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("facts", "seen", "heard_at", "grade"),
    [
        (mixed(), client(connected_at=AT_TEN), TEN + CLOCK_SLACK, AuthStrength.PROVEN),
        (mixed(), client(connected_at=AT_TEN), TEN + CLOCK_SLACK - 0.01, AuthStrength.LATER),
        (mixed(), client(connected_at=AT_TEN), TEN - 60, AuthStrength.LATER),
        (mixed(), client(connected_at=AT_TEN), None, AuthStrength.PROVEN),
        (mixed(), client(), TEN, AuthStrength.LATER),
        (mixed(), client("tcp:default", connected_at=AT_TEN), TEN + 60, AuthStrength.CLAIMED),
        (mixed(), None, TEN, AuthStrength.UNSEEN),
        (mixed(chain=True), client(connected_at=AT_TEN), TEN - 60, AuthStrength.PROVEN),
        (mixed(chain=True), client("tcp:default", connected_at=AT_TEN), TEN - 60, AuthStrength.KNOWN),
        (AuthSettings(True, False, None), client(connected_at=AT_TEN, username="x"), TEN - 60, AuthStrength.LATER),
    ],
)
def test_a_later_session_counts_only_where_all_clients_are_authenticated(
    facts: AuthSettings, seen: ClientRow | None, heard_at: float | None, grade: AuthStrength
) -> None:
    assert auth_strength_at(facts, seen, heard_at) is grade


@pytest.mark.parametrize(
    ("facts", "seen", "proves"),
    [
        (settings(), client(), True),
        (settings(), None, False),
        (settings(), client().model_copy(update={"connected": False}), False),
        (settings(), client(enable_authn=False), False),
        (settings(chain=False), client(), False),
        (replace(settings(), checks_username=False), client(), False),
        (replace(settings(chain=False), username_from_certificate=True), client(), True),
        (replace(settings(chain=False), username_from_certificate=True), client("tcp:gone"), False),
        (
            replace(settings(chain=False, tls={"verify": "verify_none"}), username_from_certificate=True),
            client(),
            False,
        ),
        (AuthSettings(True, False, None), client(), False),
    ],
)
def test_a_user_name_is_proved_by_its_password_or_a_verified_certificate(
    facts: AuthSettings, seen: ClientRow | None, proves: bool
) -> None:
    assert proves_username(facts, seen) is proves
