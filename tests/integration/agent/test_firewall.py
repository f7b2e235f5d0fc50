"""The firewall of a device in a network namespace, with a real broker outside."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.actions.base import ActionError, InvalidParamsError
from device_agent.actions.firewall import ChangeFirewall, FirewallTable
from device_agent.host import nft
from device_agent.host.nft import NftRules
from device_agent.host.system import System
from tests.support.agent_process import AgentProcess, FakeController, write_config
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_TOOLS: Final = ("ip", "nft")
_MISSING: Final = [name for name in _TOOLS if shutil.which(name) is None]


def _skip_reason() -> str:
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    if _MISSING:
        return f"needs {' and '.join(_MISSING)} (Debian: iproute2, nftables)"
    name = f"cordon-probe-{os.getpid()}"  # the processes of the tests collect at the same time
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


_WHY_NOT: Final = _skip_reason()
needs_namespaces = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "they are here")
# Disables connection tracking: no connection is established, so that closing the firewall cuts existing ones.
_NO_TRACKING: Final = """table inet raw {
 chain in { type filter hook prerouting priority raw; notrack
 }
 chain out { type filter hook output priority raw; notrack
 }
}
"""


class _Agent(AgentProcess):
    def __init__(self, config: Path, namespace: str) -> None:
        super().__init__(config)
        self._namespace = namespace

    def start(self) -> None:
        argv = ["ip", "netns", "exec", self._namespace, sys.executable, "-m", "tests.integration.agent.firewall_agent"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*argv, str(self._config), *self.die_at.split()], stdout=log, stderr=log)


@dataclass
class Harness:
    """A device in a namespace, the broker and a controller outside."""

    namespace: str
    address: str
    folder: Path
    agent: _Agent
    controller: FakeController

    def inside(self, *argv: str, given: str = "") -> str:
        """Runs a program in the namespace of the device."""
        full = ["ip", "netns", "exec", self.namespace, *argv]
        return subprocess.run(full, input=given, capture_output=True, text=True, check=False, timeout=30).stdout

    def table(self) -> str:
        """Returns the agent's table in the kernel, empty without one."""
        return self.inside("nft", "list", "table", "inet", "cordon")

    def order(self, action: str, command_id: str, **params: Any) -> None:
        """Sends a command."""
        self.controller.command(self.controller.envelope(action, command_id=command_id, **params))

    def end(self, command_id: str) -> dict[str, Any]:
        """Returns the final result of a command."""
        return wait_for(lambda: [one for one in self.controller.ends() if one["command_id"] == command_id], command_id)[
            0
        ]

    def answers(self, port: int) -> bool:
        """Returns whether the device answers on a port, from outside."""
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.address, port)) == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def _namespace(number: int) -> Iterator[tuple[str, str, str]]:
    """Yields a connected namespace: its name, the outer address, the inner address."""
    name, ours, theirs = f"cordon-{number}", f"10.213.{number % 250}.1", f"10.213.{number % 250}.2"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"co{number}a", "type", "veth", "peer", "name", f"co{number}b", "netns", name)
        _ip("addr", "add", f"{ours}/24", "dev", f"co{number}a")
        _ip("link", "set", f"co{number}a", "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{theirs}/24", "dev", f"co{number}b"),
                      ("link", "set", f"co{number}b", "up")):  # fmt: skip
            _ip("-n", name, *words)
        yield name, ours, theirs
    finally:
        _ip("netns", "del", name)
        subprocess.run(["ip", "link", "del", f"co{number}a"], capture_output=True, check=False)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """The device with its agent online."""
    with contextlib.ExitStack() as stack:
        name, ours, theirs = stack.enter_context(_namespace(os.getpid() % 10_000))
        port = free_port()
        broker = stack.enter_context(Mosquitto(extra_conf=f"listener {port} {ours}\nallow_anonymous true"))
        controller = stack.enter_context(FakeController(broker.host, broker.port))
        config = write_config(
            tmp_path, [f"mqtt://{ours}:{port}"], keys=controller.public_key, mqtt_more='keepalive="5s"'
        )
        text = config.read_text().replace(
            '"rescan"', '"firewall.enable", "firewall.allow", "firewall.deny", "port.close"'
        )
        config.write_text(text)
        agent = stack.enter_context(_Agent(config, name))
        wait_for(controller.heartbeats, "the agent to be online")
        yield Harness(name, theirs, tmp_path, agent, controller)


@contextlib.contextmanager
def _listener(harness: Harness, *ports: int) -> Iterator[None]:
    code = (
        "import socket, sys, time; all = [socket.create_server(('0.0.0.0', int(port))) for port in sys.argv[1:]];"
        "print('here', flush=True); time.sleep(99)"
    )
    argv = ["ip", "netns", "exec", harness.namespace, sys.executable, "-c", code, *map(str, ports)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


@needs_namespaces
def test_the_firewall_filters_and_is_permanent_once_the_broker_was_reached(harness: Harness) -> None:
    with _listener(harness, 2200, 2300):
        assert harness.answers(2200)
        assert harness.answers(2300)
        harness.order("firewall.enable", "on", allow="2200/tcp 53/udp", within=15)
        end = harness.end("on")
        assert (end["state"], end["reason"]) == ("succeeded", "")
        assert end["detail"] == {
            "was": "off",
            "is": "closed, allow 2200/tcp 53/udp, deny none",
        }
        assert "policy drop" in harness.table()
        assert harness.answers(2200)
        assert not harness.answers(2300)
        assert list((harness.folder / "run").iterdir()) == []
        harness.order("firewall.allow", "more", port=2300)
        assert harness.end("more")["state"] == "succeeded"
        assert harness.answers(2300)
        harness.order("port.close", "close", port=2200)
        end = harness.end("close")
        assert (end["state"], end["detail"]["by"]) == ("succeeded", "firewall")
        assert "no service" in end["detail"]["why"]
        assert not harness.answers(2200)
        harness.order("firewall.deny", "again", port=2200)
        assert harness.end("again")["reason"] == "nothing to do"
    # After a boot the kernel has no rules: the agent loads the saved ones.
    harness.inside("nft", "flush", "ruleset")
    code = (
        "import sys; from pathlib import Path; from device_agent.actions.firewall import FirewallTable;"
        "folder = Path(sys.argv[1]); t = FirewallTable(folder / 'run', folder / 'firewall.nft');"
        "print(t.load_saved(), t.load_saved())"
    )
    assert harness.inside(sys.executable, "-c", code, str(harness.folder)) == "True False\n"
    assert "tcp dport 2200 drop" in harness.table()
    assert "Traceback" not in harness.agent.log


@needs_namespaces
def test_a_change_that_cuts_the_device_off_is_undone(harness: Harness) -> None:
    harness.inside("nft", "-f", "-", given=_NO_TRACKING)
    harness.order("firewall.enable", "cut", within=6)
    wait_for(lambda: "policy drop" in harness.table(), "the rules in the kernel")
    end = harness.end("cut")
    assert end["state"] == "failed"
    assert end["reason"] == "the broker was not reached within 6 s; put back as it was"
    assert harness.table() == ""
    assert not (harness.folder / "firewall.nft").exists()
    seen = len(harness.controller.heartbeats())
    wait_for(lambda: len(harness.controller.heartbeats()) > seen, "the device to go on reporting")


@needs_namespaces
def test_the_dead_man_timer_restores_the_rules_when_the_agent_was_killed(harness: Harness) -> None:
    harness.agent.end(signal.SIGTERM)
    harness.agent.die_at = "apply"
    harness.agent.start()
    online = len(harness.controller.heartbeats())
    wait_for(lambda: len(harness.controller.heartbeats()) > online, "the agent that will die")
    harness.inside("nft", "-f", "-", given=_NO_TRACKING)
    harness.order("firewall.enable", "cut", within=5)
    wait_for(lambda: harness.agent.status is not None, "the agent to be killed")
    assert "policy drop" in harness.table()
    wait_for(lambda: harness.table() == "", "the rules to go although no agent runs")
    harness.agent.die_at = ""
    harness.agent.start()
    end = harness.end("cut")
    assert (end["state"], end["reason"]) == ("failed", "interrupted")
    assert not (harness.folder / "firewall.nft").exists()


@needs_namespaces
def test_a_killed_agent_confirms_the_rules_after_its_restart(harness: Harness) -> None:
    harness.agent.end(signal.SIGTERM)
    harness.agent.die_at = "apply"
    harness.agent.start()
    online = len(harness.controller.heartbeats())
    wait_for(lambda: len(harness.controller.heartbeats()) > online, "the agent that will die")
    harness.order("firewall.deny", "stay", port=2200, within=60)
    wait_for(lambda: harness.agent.status is not None, "the agent to be killed")
    harness.agent.die_at = ""
    harness.agent.start()
    end = harness.end("stay")
    assert (end["state"], end["reason"]) == ("succeeded", "reached before the agent was interrupted")
    assert "tcp dport 2200 drop" in harness.table()
    assert not (harness.folder / "run/firewall.pending").exists()


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("enable", {"allow": "22"}),
        ("enable", {"allow": "22/tcp;flush ruleset"}),
        ("enable", {"allow": "99999/tcp"}),
        ("enable", {"port": 22}),
        ("enable", {"within": 1}),
        ("deny", {}),
        ("deny", {"port": 0}),
        ("deny", {"port": "22"}),
        ("allow", {"port": 22, "proto": "icmp"}),
        ("allow", {"port": 22, "allow": "22/tcp"}),
    ],
)
def test_invalid_rules_are_refused(verb: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError):
        ChangeFirewall(System(), verb).check(params)


def test_prepared_roots_have_no_firewall(tmp_path: Path) -> None:
    action = ChangeFirewall(System(tmp_path), "deny", FirewallTable(tmp_path / "run", tmp_path / "rules"))
    with pytest.raises(ActionError, match="only the running system"):
        action.plan({"port": 23})
    with pytest.raises(ActionError, match="needs root"):
        ChangeFirewall(System(), "deny").plan({"port": 23})


@pytest.mark.parametrize(
    "out", ["", "{", "[]", '{"nftables": 7}', '{"nftables": [{"rule": {"expr": []}}]}', '{"nftables": []}']
)
def test_a_foreign_table_is_an_error(out: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        nft.parse(out)


def test_rules_are_described_and_rendered() -> None:
    rules = NftRules().with_denied(frozenset({("tcp", 23)})).with_allowed(frozenset({("tcp", 22), ("udp", 53)}))
    assert str(rules) == "open, allow 22/tcp 53/udp, deny 23/tcp"
    assert str(rules.with_denied(frozenset({("tcp", 22)}))) == "open, allow 53/udp, deny 22/tcp 23/tcp"
    assert "tcp dport 23 drop" in nft.render_ruleset(rules)
    assert nft.render_ruleset(None).splitlines() == ["table inet cordon {}", "delete table inet cordon"]
