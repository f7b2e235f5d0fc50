"""The whole agent as a process: alerts become events, a command takes a new baseline, reload and stop."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.agent_process import AgentProcess, broker_with_controller, write_config
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

ALERT: Final = (
    '{"timestamp":"2026-11-23T10:00:00.1+0000","event_type":"alert","src_ip":"192.0.2.7","dest_ip":"198.51.100.1",'
    '"alert":{"gid":1,"signature_id":7,"signature":"ET SCAN","severity":1}}\n'
)


class Systemd:
    """The service manager at NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)

    def until(self, word: str) -> str:
        while True:
            said = self.socket.recv(4096).decode()
            if word in said:
                return said


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    found = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    yield found
    found.socket.close()


def _config(folder: Path, port: int, key: str, watch: Path, files: Path) -> Path:
    config = write_config(folder, [f"mqtt://127.0.0.1:{port}"], keys=key)
    text = config.read_text().replace('allow = ["', 'allow = ["integrity.rebaseline", "')
    config.write_text(
        f'{text}[intrusion]\nwatch = ["suricata:{watch}"]\npoll = "100ms"\nrepeat_after = "100ms"\n'
        f'[integrity]\npaths = ["{files}"]\nevery = "100ms"\n'
    )
    return config


def _integrity(controller: Any) -> dict[str, Any]:
    found: dict[str, Any] = controller.full()[-1]["sections"]["integrity"] if controller.full() else {}
    return found


def _reloaded(agent: AgentProcess, systemd: Systemd, config: Path, text: str) -> str:
    """Returns the notification of systemd after a reload of this configuration."""
    config.write_text(text)
    agent.send(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in systemd.until("RELOADING=1")
    return systemd.until("READY=1")


def test_alerts_baselines_reload_and_stop_of_the_whole_agent(tmp_path: Path, systemd: Systemd) -> None:
    eve, files = tmp_path / "eve.json", tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("as it was")
    eve.write_text(ALERT)  # older than the agent: no event
    with broker_with_controller() as (broker, controller):
        config = _config(tmp_path, broker.port, controller.public_key, eve, files)
        with AgentProcess(config, is_light=False) as agent:
            systemd.until("READY=1")
            wait_for(controller.full, "a full report")
            assert _integrity(controller)["changed"] == 0
            systemd.until("WATCHDOG=1\nSTATUS=connected")

            with eve.open("a") as file:
                file.write(ALERT * 3)
            event = wait_for(lambda: controller.of("event"), "the event")[0]
            assert (event["kind"], event["severity"], event["count"]) == ("intrusion.suricata", "high", 3)
            assert event["detail"]["signature"] == "1:7"

            (files / "a").write_text("not any more")
            controller.command(controller.envelope("rescan"))
            wait_for(lambda: _integrity(controller)["changed"] == 1, "the change")
            assert _integrity(controller)["changes"][0]["path"] == str(files / "a")
            controller.command(controller.envelope("integrity.rebaseline"))
            # The result of the first command may be published twice.
            own = controller.ends()[0]["command_id"]
            ends = lambda: [one for one in controller.ends() if one["command_id"] != own]  # noqa: E731
            end = wait_for(ends, "the end of the command")[0]
            assert (end["state"], end["detail"]["was"], end["detail"]["is"]) == ("succeeded", "1 changes", "0 changes")
            wait_for(lambda: _integrity(controller)["changed"] == 0, "a report without the change")

            good = config.read_text()
            assert "the old one stays" in _reloaded(agent, systemd, config, "nonsense [")
            assert "the configuration stays as it was" in agent.log
            other = tmp_path / "other.json"
            other.write_text("")
            _reloaded(agent, systemd, config, good.replace(str(eve), str(other)))
            wait_for(lambda: f"following {other}" in agent.log, "the new configuration")
            with other.open("a") as file:
                file.write(ALERT)
            wait_for(lambda: controller.of("event")[1:], "an event from the other file")
            assert agent.end(signal.SIGTERM) == 0
            systemd.until("STOPPING=1")
            wait_for(lambda: controller.of("status")[-1]["state"] == "offline", "the last status")
            states = [status["state"] for status in controller.of("status")]
            assert re.fullmatch("(online|offline)( online| offline)* offline", " ".join(states))
        assert "Traceback" not in agent.log
