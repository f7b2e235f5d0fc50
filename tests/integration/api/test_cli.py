"""The command line as operators use it: a stand-in, a controller and simulated devices, each a process of its own."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from controller.adapters.keys import load_signing_key
from controller.cli.app import run_safely
from controller.domain.audit_kinds import AuditKind
from schemas.signing import public_key_text
from tests.support.standin import StandInProcess

PATIENCE = 30.0  # seconds
CORDON = [sys.executable, "-m", "controller.main"]


@dataclass(slots=True)
class House:
    """Everything that runs."""

    emqx: StandInProcess
    config: Path
    orders: IO[str]
    capsys: pytest.CaptureFixture[str] | None = None

    def cordon(self, *argv: str, status: int = 0) -> str:
        """Standard output of a command that has to end with `status`."""
        assert self.capsys is not None
        self.capsys.readouterr()
        code = run_safely([*argv, "--config", str(self.config)])
        told = self.capsys.readouterr()
        assert code == status, told.out + told.err
        return told.out

    def json(self, *argv: str) -> Any:
        """The JSON of a command."""
        return json.loads(self.cordon(*argv, "-o", "json"))

    def change(self, **order: Any) -> None:
        """Tell the simulated devices something."""
        self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()

    def wait_for(self, device: str, kind: str) -> dict[str, Any]:
        """The device once its record has a line of this kind."""
        end = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = self.json("devices", "show", device)
            if any(line["kind"] == kind for line in found["timeline"]):
                return found
            assert time.monotonic() < end, found["timeline"]
            time.sleep(0.1)


def _start(argv: list[str], log: IO[bytes], ready: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if ready in line:
            return process
    process.wait()
    log.seek(0)
    raise AssertionError(log.read().decode())


def _stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=PATIENCE)
    return process.returncode


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A broker that wants passwords, a controller made by `cordon init`, three devices."""
    folder = tmp_path_factory.mktemp("house")
    password = folder / "password"
    password.write_text("pw")
    password.chmod(0o600)
    users = (("dev", "pw"), ("cordon-controller", "pw"))
    with StandInProcess(nodes=2, users=users) as emqx, tempfile.TemporaryFile() as log:
        secret = folder / "secret"
        secret.write_text(emqx.secret)
        servers = [f"mqtt://{host}:{port}" for host, port in emqx.mqtt]
        argv = ["init", "--dir", str(folder / "conf"), "--listen", "127.0.0.1:0", "--yes", "--emqx-key", emqx.key]
        argv += ["--emqx-secret-file", str(secret), "--mqtt-user", "cordon-controller"]
        argv += ["--mqtt-password-file", str(password)]
        argv += [part for url in emqx.api_urls for part in ("--emqx", url)]
        argv += [part for url in servers for part in ("--mqtt", url)]
        assert run_safely(argv) == 0
        config = folder / "conf" / "cordon.toml"
        # All devices share a user, so their ids are not bound to it.
        config.write_text(config.read_text() + "\n[identity]\nunsafe_accept_claimed = true\n")
        argv = [*CORDON, "serve", "--config", str(config)]
        serving = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert serving.stdout is not None
            url = json.loads(serving.stdout.readline())["api"]
            config.write_text(config.read_text().replace("127.0.0.1:0", url.removeprefix("http://")))
            key = public_key_text(load_signing_key(folder / "conf" / "command-signing.key").public_key())
            argv = [sys.executable, "-m", "device_agent.main", "simulate", "--devices", "3", "--control", "stdin"]
            argv += ["--servers", ",".join(servers), "--username", "dev", "--password-file", str(password)]
            devices = _start([*argv, "--controller-key", key], log, '"ready"')
            try:
                assert devices.stdin is not None
                yield House(emqx, config, devices.stdin)
            finally:
                _stop(devices)
        finally:
            assert _stop(serving) == 0


@pytest.fixture
def house(running: House, capsys: pytest.CaptureFixture[str]) -> House:
    """The house, with what commands print caught."""
    running.capsys = capsys
    return running


def test_a_violation_is_contained_repaired_and_told(house: House) -> None:
    house.wait_for("sim-001", AuditKind.REPORT_FIRST_ACCEPTED)
    house.change(do="change", device="sim-001", open_port=23, process="telnetd")
    found = house.wait_for("sim-001", AuditKind.CONTAINMENT_RELEASE_PROVEN)
    assert found["level"] == "none"
    kinds = [line["kind"] for line in found["timeline"]]
    order = [
        AuditKind.REPORT_FIRST_ACCEPTED,
        AuditKind.REPORT_POSTURE_CHANGED,
        AuditKind.CONTAINMENT_DECIDED,
        AuditKind.CONTAINMENT_PROVEN,
        AuditKind.CONTAINMENT_RELEASE_DECIDED,
        AuditKind.CONTAINMENT_RELEASE_PROVEN,
    ]
    places = [kinds.index(kind) for kind in order]
    assert places == sorted(places)
    page = house.cordon("devices", "show", "sim-001")
    for part in ("restricted: fails starter/no-telnet", "from the report to the cut", "PUT .../rules/clients/sim-001",
                 "rules read back", "as wanted", "command succeeded: service.disable", "free again"):  # fmt: skip
        assert part in page
    listed = house.json("command", "list", "--device", "sim-001")
    assert {one["state"] for one in listed} <= {"succeeded", "failed", "expired", "scheduled", "executing"}
    assert any(one["state"] == "succeeded" and one["rule"] == "starter/no-telnet" for one in listed)


def test_quarantine_by_hand_is_proven_before_the_command_returns(house: House) -> None:
    house.wait_for("sim-002", AuditKind.REPORT_FIRST_ACCEPTED)
    out = house.cordon("quarantine", "isolate", "sim-002", "--reason", "looks odd", "--for", "2h")
    assert "sim-002: isolated. A containment was decided for the device." in out
    assert "The broker was read back and holds the decision." in out
    assert [one["device_id"] for one in house.json("quarantine", "list")] == ["sim-002"]
    assert "isolated" in house.cordon("devices", "list", "--level", "isolated")
    decision = house.json("quarantine", "release", "sim-002", "-r", "checked")
    assert (decision["level"], decision["proven"], decision["case"]["level"]) == ("restricted", True, "restricted")
    out = house.cordon("quarantine", "release", "sim-002", "-r", "checked")
    assert "The broker was read back" in out
    assert "nothing was released" in house.cordon("quarantine", "release", "sim-002", "-r", "checked")
    page = house.cordon("audit", "list", "--device", "sim-002", "--kind", AuditKind.CONTAINMENT_DECIDED)
    assert "operator:operator" in page
    assert "looks odd" in page


def test_a_plan_before_and_a_receipt_after(house: House) -> None:
    house.wait_for("sim-001", AuditKind.REPORT_FIRST_ACCEPTED)
    plan = house.cordon("quarantine", "plan", "sim-001", "isolate", "--for", "2h", "--clear-retained")
    for part in ("1.", "do: ban", "POST /api/v5/banned", '"by": "cordon/<case>"', "(each node)",
                 "only if nothing before it is missing", "DELETE /api/v5/mqtt/retainer/message/<topic>"):  # fmt: skip
        assert part in plan
    house.cordon("quarantine", "receipt", "sim-009", status=1)
    house.cordon("quarantine", "restrict", "sim-001", "--reason", "looks odd", "--kick")
    receipt = house.cordon("quarantine", "receipt", "sim-001")
    assert "PROVEN" not in receipt
    for part in (": proven", "restricted, by operator:operator (looks odd)",
                 "A containment was decided for the device.", "after the report arrived",
                 "DELETE /clients/sim-001", "observed at http://", "rules read back: as wanted"):  # fmt: skip
        assert part in receipt
    told = house.json("quarantine", "receipt", "sim-001")
    shown = house.json("quarantine", "plan", "sim-001", "release")
    assert (told["closed"], shown["goal"]) == (True, "release")
    house.cordon("quarantine", "release", "sim-001", "--reason", "checked")
    after = house.json("quarantine", "receipt", "sim-001", "--case", told["case_id"])
    assert [deed["level"] for deed in after["deeds"]] == ["restricted", "none"]


def test_a_user_is_contained_with_every_session(house: House) -> None:
    house.wait_for("sim-003", AuditKind.REPORT_FIRST_ACCEPTED)
    house.cordon("quarantine", "isolate", "--username", "cordon-controller", "--reason", "no", status=1)
    house.cordon("quarantine", "isolate", "sim-003", "--username", "dev", "--reason", "no", status=2)
    house.cordon("quarantine", "restrict", "--certificate", "sim-003", "--reason", "no", status=1)
    out = house.cordon("quarantine", "isolate", "--username", "dev", "--reason", "stolen", "--for", "2h")
    assert "user dev: isolated" in out
    (case,) = house.json("quarantine", "users")
    assert (case["username"], case["level"], case["proven"]) == ("dev", "isolated", True)
    assert "user dev: restricted" in house.cordon("quarantine", "release", "--username", "dev", "-r", "found")
    assert "user dev: free" in house.cordon("quarantine", "release", "--username", "dev", "-r", "found")
    assert house.json("quarantine", "users") == []


def test_commands_by_hand(house: House) -> None:
    house.wait_for("sim-003", AuditKind.REPORT_FIRST_ACCEPTED)
    assert "succeeded" in house.cordon("command", "send", "sim-003", "rescan", "--wait")
    refused = house.cordon("command", "send", "sim-003", "service.disable", "name=absent", "--wait", status=1)
    assert "failed" in refused
    (command,) = [one for one in house.json("command", "list", "--device", "sim-003") if one["state"] == "failed"]
    assert command["params"] == {"name": "absent"}
    assert house.json("command", "show", command["command_id"]) == {**command, "waited": "no"}


def test_looking_around(house: House) -> None:
    house.wait_for("sim-003", AuditKind.REPORT_FIRST_ACCEPTED)
    assert house.cordon("broker", "ping").count("yes") == 3
    assert house.json("broker", "drift") == []
    assert house.json("dead-letters", "list") == []
    assert len(house.json("audit", "list", "--limit", "3")) == 3
    assert house.json("devices", "label", "sim-003", "--class", "lab", "--tag", "x")["tags"] == ["x"]
    assert [one["device_id"] for one in house.json("devices", "list", "--search", "lab")] == ["sim-003"]
    listed = ("devices", "list", "--class", "lab", "--tag", "x", "--sort", "-last_seen")
    assert [one["device_id"] for one in house.json(*listed)] == ["sim-003"]
    assert house.json(*listed, "--seen-before", "1h") == []
    assert house.json("devices", "label", "sim-003", "--no-tags")["tags"] == []
    assert "starter/no-telnet" in house.cordon("policy", "list")
    assert "sim-003: " in house.cordon("policy", "explain", "sim-003")
    assert "in force: 1 policies" in house.cordon("policy", "reload")


def test_tokens(house: House) -> None:
    token = house.json("token", "create", "bob")["token"]
    assert house.cordon("devices", "list", "--token", token)
    house.cordon("token", "revoke", "bob")
    house.cordon("devices", "list", "--token", token, status=4)
    assert [one["name"] for one in house.json("token", "list")] == ["operator"]
    house.cordon("token", "revoke", "operator", status=1)


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["devices", "show", "nobody"], 1),
        (["devices", "show", "../tokens"], 1),
        (["devices", "label", "sim-001"], 2),
        (["devices", "list", "--url", "http://127.0.0.1:1"], 3),
        (["devices", "list", "--token", "wrong"], 4),
    ],
)
def test_exit_status(house: House, argv: list[str], status: int) -> None:
    assert house.cordon(*argv, status=status) == ""


def test_init_shows_what_it_would_write_and_writes_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StandInProcess(nodes=1) as emqx:
        secret = tmp_path / "secret"
        secret.write_text(emqx.secret)
        argv = ["init", "--dir", str(tmp_path / "conf"), "--emqx", emqx.api_urls[0], "--emqx-key", emqx.key]
        argv += ["--emqx-secret-file", str(secret), "--mqtt", f"mqtt://{emqx.mqtt[0][0]}:{emqx.mqtt[0][1]}"]
        for _ in range(2):  # nobody agreed, so nothing was written, so it is shown again
            assert run_safely(argv) == 1
            told = capsys.readouterr()
            assert "+ allow publish cordon/v1/${clientid}/up/#" in told.out
            assert "the broker was not changed" in told.err
        assert run_safely([*argv, "--yes"]) == 0
        assert f"made   {emqx.api_urls[0]}" in capsys.readouterr().out
        assert run_safely(argv) == 0
        assert "the broker has the required settings" in capsys.readouterr().out
        (tmp_path / "conf" / "emqx.key").write_text("cordon:wrong")
        assert run_safely(argv) == 1
        assert "could not be set up" in capsys.readouterr().err


def test_as_a_process_in_a_pipe(house: House) -> None:
    house.wait_for("sim-003", AuditKind.REPORT_FIRST_ACCEPTED)
    argv = [*CORDON, "devices", "list", "--config", str(house.config), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"sim-001", "sim-002", "sim-003"} == {one["device_id"] for one in json.loads(done.stdout)}
