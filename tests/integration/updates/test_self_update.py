"""Updates of the agent itself: processes in two slots, and the previous agent again when the new one fails."""

import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from device_agent import __version__
from device_agent.updates.slots import LAUNCHER_VARIABLE, SlotState, SlotTrial
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import sign
from schemas.topics import DownChannel, down
from schemas.updates import INSTALL, InstallParams
from tests.support.agent_process import DEVICE, AgentProcess, FakeController, broker_with_controller
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, order
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

# The agent of this work tree with another version; the middle part makes it fail.
_MAIN = """import sys
import device_agent
device_agent.__version__ = {version!r}
if "--version" not in sys.argv:
    {wrong}
from device_agent.main import main
raise SystemExit(main())
"""


def one_file(place: Path, version: str, wrong: str = "pass") -> bytes:
    """Builds a one-file agent quickly."""
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("__main__.py", _MAIN.format(version=version, wrong=wrong))
    return place.read_bytes()


class Launched(AgentProcess):
    """`cordon-agent launch`, restarted when it fails, as by systemd with Restart=on-failure."""

    def __init__(self, config: Path) -> None:
        super().__init__(config, is_light=False)
        self.starts = 0
        self._over = threading.Event()

    def start(self) -> None:
        """Starts the agent, and restarts it whenever it fails."""
        self._watch = threading.Thread(target=self._again, daemon=True)
        self._launch()
        self._watch.start()

    def _launch(self) -> None:
        self.starts += 1
        argv = [sys.executable, "-m", "device_agent.main", "launch", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    def _again(self) -> None:
        while not self._over.wait(0.05):
            if self._process is not None and self._process.poll() not in {None, 0}:
                self._launch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()
        super().__exit__(kind, error, trace)


def write_launch_config(folder: Path, broker_port: int, public_key: str, url: str, root: bytes) -> Path:
    (folder / "root.json").write_bytes(root)
    path = folder / "agent.toml"
    path.write_text(
        f'device_id = "{DEVICE}"\n[mqtt]\nservers = ["mqtt://127.0.0.1:{broker_port}"]\n'
        f'[report]\nscan_every = "1h"\nheartbeat_every = "1s"\nreceipt_timeout = "5s"\n'
        f'[commands]\ncontroller_keys = ["{public_key}"]\nallow = ["update.install", "update.rollback"]\n'
        f'[agent]\nstate_dir = "{folder / "state"}"\n'
        f'[updates]\nurl = "{url}"\nroot = "{folder / "root.json"}"\nmin_bytes_per_second = 0\n'
    )
    return path


def send(controller: FakeController, what: InstallParams, command_id: str) -> None:
    now = datetime.now(UTC)
    command = Command(
        command_id=command_id,
        device_id=DEVICE,
        action=INSTALL,
        params=what.params(),
        issued_at=now,
        expires_at=now + timedelta(minutes=10),
        counter=int(now.timestamp() * 1000),
    )
    envelope = sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, controller.key)
    controller.publish(down(DEVICE, DownChannel.COMMAND), envelope)


def ended(controller: FakeController, command_id: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        results = [one for one in controller.of("result") if one["command_id"] == command_id]
        return [one for one in results if one["state"] not in {"executing", "scheduled"}]

    deadline = time.monotonic() + 90
    while not (results := found()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert results, controller.of("result")
    return results[0]


@contextmanager
def launched(tmp_path: Path, made: Repository, server: UpdateServer) -> Iterator[tuple[FakeController, Launched]]:
    with broker_with_controller() as (broker, controller):
        config = write_launch_config(tmp_path, broker.port, controller.public_key, server.url, made.first_root)
        with Launched(config) as agent:
            wait_for(controller.full, "a full report")
            yield controller, agent


AGENT: dict[str, Any] = {"kind": "file", "installer": "agent", "health": {"seconds": 20}}


def test_a_new_agent_takes_over_unless_it_is_broken(tmp_path: Path, made: Repository, server: UpdateServer) -> None:
    good = made.publish("cordon-agent", "9.9.1", one_file(tmp_path / "a.pyz", "9.9.1"), file="agent.pyz", **AGENT)
    dead = one_file(tmp_path / "b.pyz", "9.9.2", wrong="raise SystemExit(3)")
    bad = made.publish("cordon-agent", "9.9.2", dead, file="agent.pyz", **AGENT)
    with launched(tmp_path, made, server) as (controller, agent):
        assert {report["agent"] for report in controller.full()} == {__version__}
        send(controller, order(good), "good")
        result = ended(controller, "good")
        assert (result["state"], result["detail"]["phase"]) == ("succeeded", "confirmed"), result
        assert result["detail"]["before"] == __version__

        def confirmed() -> list[dict[str, Any]]:
            reports = [one for one in controller.full() if one["agent"] == "9.9.1"]
            entries = [one for report in reports for one in report["sections"]["software"].get("entries", [])]
            return [one for one in entries if one["outcome"] == "confirmed"]

        entry = wait_for(confirmed, "a report of the new agent that confirms it")[0]
        assert (entry["name"], entry["version"]) == ("cordon-agent", "9.9.1")
        assert agent.starts == 1  # the process replaced itself
        send(controller, order(bad), "bad")
        result = ended(controller, "bad")
        assert (result["state"], result["detail"]["phase"]) == ("failed", "rolled_back"), result
        assert agent.starts == 4  # three attempts, then the previous agent
        slots = SlotState.model_validate_json((tmp_path / "state/updates/agent/slots.json").read_bytes())
        assert (slots.versions[slots.active], slots.trial) == ("9.9.1", None)


def test_the_alarm_kills_an_agent_that_hangs_and_the_previous_one_runs(
    tmp_path: Path, made: Repository, server: UpdateServer
) -> None:
    slots = tmp_path / "state/updates/agent"
    slots.mkdir(parents=True)
    one_file(slots / "a.pyz", "9.9.3", wrong="import time; time.sleep(1000)")
    trial = SlotTrial(slot="a", deadline=time.time() + 2)
    (slots / "slots.json").write_text(SlotState(versions={"a": "9.9.3"}, trial=trial).model_dump_json())
    with launched(tmp_path, made, server) as (controller, agent):
        assert controller.full()[0]["agent"] == __version__
        assert agent.starts >= 2
    assert json.loads((slots / "slots.json").read_text())["trial"] is None


def test_an_agent_with_another_version_is_refused(
    tmp_path: Path, made: Repository, device: UpdateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = made.publish("cordon-agent", "9.9.4", one_file(tmp_path / "a.pyz", "1.2.3"), file="agent.pyz", **AGENT)
    alone = device.install(order(other))
    assert (alone.detail["phase"], alone.detail["reason_code"]) == ("refused", "not_for_this_device"), alone
    monkeypatch.setenv(LAUNCHER_VARIABLE, "[]")
    result = device.install(order(other))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "mismatch"), result
    none = made.publish("cordon-agent", "9.9.5", b"no archive", file="agent.pyz", **AGENT)
    assert device.install(order(none)).detail["reason_code"] == "install"


@pytest.mark.parametrize("damage", ["", "{", '{"active": "c"}'])
def test_with_damaged_slots_the_manually_installed_agent_runs(tmp_path: Path, damage: str) -> None:
    from device_agent.updates.slots import AgentSlots

    (tmp_path / "slots.json").write_text(damage)
    assert AgentSlots(tmp_path).select_launch(0.0).file is None
