"""The errors that answers map to, with EMQX's recorded bodies."""

import pytest

from controller.adapters.emqx.client.responses import MAX_MESSAGE, EmqxConflictError, response_data
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerRefusedError

JSON = "application/json"


def test_a_good_answer_is_its_data() -> None:
    assert response_data("GET /x", "/x", 200, JSON, b'{"a": 1}') == {"a": 1}
    assert response_data("DELETE /x", "/x", 204, "", b"") is None


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/clients/a", "connections"),
        ("/banned", "connections"),
        ("/authorization/sources", "access_control"),
        ("/authentication", "access_control"),
        ("/publish", "publish"),
        ("/nodes", "cluster_operations"),
        ("/listeners/ssl:default", "the scope system, which EMQX combines with no other: .* no scopes"),
        ("/configs/global_zone", "the scope system"),
        ("/stats", "monitoring"),
        ("/unheard", "role administrator"),
    ],
)
def test_a_403_names_the_missing_right(path: str, right: str) -> None:
    with pytest.raises(BrokerRefusedError, match=right):
        response_data("GET", path, 403, JSON, b'{"code":"UNAUTHORIZED_ROLE","message":"x"}')


def test_a_401_tells_a_wrong_key_from_a_path_no_key_may_use() -> None:
    with pytest.raises(BrokerRefusedError, match="key or secret is wrong"):
        response_data(
            "GET", "/nodes", 401, JSON, b'{"code":"BAD_API_KEY_OR_SECRET","message":"Check api_key/api_secret"}'
        )
    with pytest.raises(BrokerRefusedError, match="dashboard login"):
        response_data("GET", "/api_key", 401, JSON, b'{"code":"API_KEY_NOT_ALLOW","message":"Please use bearer Token"}')


def test_a_conflict_keeps_the_whole_message() -> None:
    message = "x" * (2 * MAX_MESSAGE)
    with pytest.raises(EmqxConflictError) as caught:
        response_data("POST", "/banned", 400, JSON, b'{"code":"ALREADY_EXISTS","message":"%s"}' % message.encode())
    assert caught.value.message == message
    assert len(str(caught.value)) < 2 * MAX_MESSAGE


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b'"text"', b'{"detail":"Not Found"}'])
def test_a_404_without_emqx_error_code_is_not_absence(raw: bytes) -> None:
    with pytest.raises(BrokerAnswerError):
        response_data("GET /clients/a", "/clients/a", 404, "text/html", raw)


def test_an_error_text_is_bounded_and_printable() -> None:
    raw = b'{"code":"BAD","message":"\\u001b[2J' + b"y" * 5000 + b'"}'
    with pytest.raises(BrokerError) as caught:
        response_data("GET", "/x", 500, JSON, raw)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < MAX_MESSAGE + 100


def test_a_message_that_is_not_a_string_is_shown() -> None:
    with pytest.raises(BrokerRefusedError, match="144"):
        response_data("POST", "/publish", 400, JSON, b'{"message":"topic_name_invalid","reason_code":144}')
