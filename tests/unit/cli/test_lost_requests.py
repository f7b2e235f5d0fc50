"""A controller that restarts, or a broken connection, does not end a wait; what it ends with tells lost from failed."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from controller.api.client import ApiClient, ApiUnreachableError
from controller.cli.app import run_safely
from controller.cli.errors import ExitCode

RING: dict[str, Any] = {"name": "all", "devices": 1, "error_rate": 0.0, "sample": 0} | dict.fromkeys(
    ("pending", "away", "ordered", "received", "claimed", "confirmed", "had_it", "failed", "lost", "declined",
     "unknown", "skipped", "errors", "revert_pending", "revert_away", "reverting", "reverted", "not_reverted"), 0
)  # fmt: skip


def rollout(state: str) -> dict[str, Any]:
    return {
        "rollout_id": "r-0001", "name": "app", "version": "2.0", "state": state, "paused": False, "why": "two failed",
        "created_at": "2026-11-23T10:00:00Z", "soak_until": None, "approved_by": "", "remarks": [], "rings": [RING],
    }  # fmt: skip


def command(state: str) -> dict[str, Any]:
    waited = "settled" if state == "succeeded" else "timed_out"
    return {
        "command_id": "c1", "device_id": "edge-1", "action": "rescan", "params": {}, "dry_run": False, "state": state,
        "reason": "", "detail": {}, "waited": waited,
    }  # fmt: skip


class Api:
    """Answers with these in turn, the last one for ever: JSON, a status, or None for a closed connection."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                if answer is None:
                    self.close_connection = True
                    return
                body = b"starting" if isinstance(answer, int) else json.dumps(answer).encode()
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: Any) -> None:
                """Logs nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(served: Api, *argv: str) -> int:
    return run_safely([*argv, "--url", served.url, "--token", "t"])


@pytest.mark.parametrize("lost", [(None,) * 7, (503,) * 5, (502, None, None, None, 504, 429)])
@pytest.mark.parametrize(("end", "status"), [("completed", ExitCode.OK), ("stopped", ExitCode.FAILED)])
def test_watching_goes_on_after_lost_requests(
    served: Api, capsys: pytest.CaptureFixture[str], lost: tuple[Any, ...], end: str, status: ExitCode
) -> None:
    served.answers = [rollout("running"), *lost, rollout("running"), *lost, rollout(end)]
    assert run(served, "rollout", "status", "r-0001", "--watch") == status
    assert served.asked == len(served.answers)
    assert "asking again in 1 s" in capsys.readouterr().err


def test_waiting_for_a_command_goes_on_after_lost_requests(served: Api) -> None:
    served.answers = [command("executing"), None, None, None, 503, command("executing"), 502, command("succeeded")]
    assert run(served, "command", "send", "edge-1", "rescan", "--wait") == ExitCode.OK
    assert served.asked == len(served.answers)


@pytest.mark.parametrize(("answer", "status"), [(404, ExitCode.FAILED), (401, ExitCode.NOT_ALLOWED)])
def test_an_answer_that_does_not_pass_ends_it(served: Api, answer: int, status: ExitCode) -> None:
    served.answers = [rollout("running"), answer]
    assert run(served, "rollout", "status", "r-0001", "--watch") == status
    assert served.asked == 2


def test_a_certificate_that_cannot_be_verified_is_asked_no_more(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(_client: ApiClient, path: str, **_query: object) -> Any:
        asked.append(path)
        assert len(asked) <= 2
        if len(asked) == 1:
            return rollout("running")
        raise ApiUnreachableError("self-signed certificate") from ssl.SSLCertVerificationError()

    monkeypatch.setattr(ApiClient, "get", get)
    assert run(served, "rollout", "status", "r-0001", "--watch") == ExitCode.UNREACHABLE
    assert len(asked) == 2


def test_an_api_that_was_never_reached_is_an_error_at_once(served: Api) -> None:
    served.answers = [503]
    assert run(served, "rollout", "status", "r-0001", "--watch") == ExitCode.FAILED
    assert served.asked == 1


def test_giving_up_while_it_is_lost_is_no_failure_of_the_rollout(
    served: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served.answers = [rollout("running"), 503]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(served, "rollout", "status", "r-0001", "--watch") == ExitCode.UNREACHABLE
    assert pauses[1:] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert "the end is not known, and what was started goes on" in capsys.readouterr().err
