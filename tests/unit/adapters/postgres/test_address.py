import pytest

from controller.adapters.postgres.address import PostgresAddress
from controller.ports.errors import SettingsError


def test_a_server_elsewhere_has_to_show_that_it_is_the_one() -> None:
    found = dict(PostgresAddress.parse("postgresql://cordon@db.example:5433/fleet").parameters)
    assert (found["host"], found["port"], found["user"], found["dbname"]) == ("db.example", "5433", "cordon", "fleet")
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "system")
    assert found["target_session_attrs"] == "read-write"
    assert {"connect_timeout", "tcp_user_timeout", "keepalives_idle"} <= set(found)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql://c@127.0.0.1/f", "127.0.0.1"),
        ("postgresql://c@localhost:5432/f", "localhost"),
        ("postgresql://c@[::1]:5432/f", "::1"),
        ("postgresql://c@/f?host=/run/postgresql", "/run/postgresql"),
        ("postgresql://c@%2Frun%2Fpostgresql/f", "/run/postgresql"),
    ],
)
def test_a_server_of_this_machine_needs_no_certificate(url: str, host: str) -> None:
    found = dict(PostgresAddress.parse(url).parameters)
    assert found["host"] == host
    assert "sslmode" not in found


def test_options_of_the_operator_stay_and_several_servers_are_tried_in_turn() -> None:
    address = PostgresAddress.parse("postgresql://c@a.example:1,b.example:2/f?sslmode=require&sslrootcert=/ca.pem")
    found = dict(address.parameters)
    assert (found["host"], found["port"], found["sslmode"]) == ("a.example,b.example", "1,2", "require")
    assert found["sslrootcert"] == "/ca.pem"
    assert address.shown == "postgresql://c@a.example:1,b.example:2/f"


def test_the_password_is_in_no_text() -> None:
    address = PostgresAddress.parse("postgresql://c@localhost/f", "hunter2")
    assert address.with_name("x")["password"] == "hunter2"
    assert "hunter2" not in f"{address} {address!r} {address.shown}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://c:hunter2@localhost/f", "use store.password_file"),
        ("postgresql://c@localhost/f?password=hunter2", "unknown option password"),
        ("postgresql://c@localhost/f?options=-c%20fsync%3Doff", "unknown option options"),
        ("mysql://c@localhost/f", "postgresql://user@host"),
        ("postgresql://c@localhost/f#x", "postgresql://user@host"),
        ("postgresql://[::1", "no URL"),
        ("postgresql://c@localhost/f?x", "no URL"),
    ],
)
def test_what_cannot_be_used_says_why_and_shows_no_password(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        PostgresAddress.parse(url)
    assert "hunter2" not in str(refused.value)
