"""The SQL of rules over events: what is understood, and that nothing else is taken."""

import pytest

from controller.standin.event_rules import Republish, UnsupportedSqlError, parse_select

AUTHZ = '"$events/client_check_authz_complete"'


def test_fields_events_and_conditions() -> None:
    select = parse_select(
        f"SELECT clientid, topic\nFROM {AUTHZ}, \"$events/client_connack\" WHERE result='deny' and x <> 'y'"
    )
    assert select.events == ("$events/client_check_authz_complete", "$events/client_connack")
    row = {"clientid": "a", "topic": "t", "result": "deny", "other": 1}
    assert select.of(row) == {"clientid": "a", "topic": "t"}
    assert select.of({**row, "result": "allow"}) is None
    assert select.of({**row, "x": "y"}) is None


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "DELETE FROM x",
        'SELECT * FROM "a/b"',
        'SELECT * FROM "$events/client_connected"',
        f"SELECT max(x) FROM {AUTHZ}",
        f"SELECT * FROM {AUTHZ} WHERE result = 'deny' OR result = 'allow'",
        f"SELECT * FROM {AUTHZ} WHERE qos > 1",
        f"SELECT * FROM {AUTHZ} WHERE",
    ],
)
def test_anything_else_is_refused(sql: str) -> None:
    with pytest.raises(UnsupportedSqlError):
        parse_select(sql)


def test_placeholders_take_values_of_the_row() -> None:
    action = Republish("seen/${event}/${missing}", '{"all":${.},"id":${id}}', 1, retain=False)
    assert action.message({"event": "e", "id": 1}) == ("seen/e/undefined", b'{"all":{"event":"e","id":1},"id":1}')
