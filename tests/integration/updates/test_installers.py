"""Scripts, images and packages: installed and rolled back, also after a power loss."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.ports.updates import PublishedUpdate
from device_agent.errors import StoppedError
from device_agent.host.system import System
from device_agent.updates.installers import base
from schemas.commands import CommandState
from schemas.updates import InstallerKind
from tests.support.debs import apt_root, deb, signed_source, stop_gpg_agent
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, order

pytestmark = pytest.mark.slow

SCRIPT = """#!/bin/sh
echo "$CORDON_UPDATE_STEP $CORDON_UPDATE_VERSION $1" >> {log}
exit {status}
"""


def publish_script(made: Repository, version: str, log: Path, *, status: int = 0, **parts: Any) -> PublishedUpdate:
    script = {"kind": "script", "installer": "script", "arguments": ["x"], **parts}
    content = SCRIPT.format(log=log, status=f"$([ $CORDON_UPDATE_STEP = install ] && echo {status} || echo 0)")
    return made.publish("tune", version, content.encode(), file="tune.sh", **script)


def test_a_script_runs_once_per_step(made: Repository, device: UpdateDevice, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = device.install(order(publish_script(made, "1.0", log)))
    assert (result.state, result.detail["phase"]) == (CommandState.SUCCEEDED, "confirmed"), result
    assert log.read_text() == "install 1.0 x\n"
    assert device.entry("tune").version == "1.0"


def test_a_file_set_after_a_script_goes_back_to_the_script(
    made: Repository, device: UpdateDevice, tmp_path: Path
) -> None:
    link = device.settings.agent.state_dir / "updates/sets/tune/current"
    assert device.install(order(publish_script(made, "1.0", tmp_path / "log"))).detail["phase"] == "confirmed"
    check = {"command": ["/bin/false"], "seconds": 1}
    bad = device.install(order(made.publish("tune", "2.0", b"set", file="data.bin", health=check)))
    assert (bad.detail["phase"], bad.detail["reason_code"]) == ("rolled_back", "health"), bad
    assert (device.entry("tune").version, link.exists()) == ("1.0", False)
    assert device.install(order(made.publish("tune", "2.1", b"set", file="data.bin"))).detail["phase"] == "confirmed"
    assert link.exists()
    assert device.go_back("tune", "2.1").detail["phase"] == "rolled_back"
    assert (device.entry("tune").version, link.exists()) == ("1.0", False)


def test_a_failed_or_slow_script_is_rolled_back(made: Repository, device: UpdateDevice, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert device.install(order(publish_script(made, "1.0", log))).state is CommandState.SUCCEEDED
    failed = device.install(order(publish_script(made, "1.1", log, status=4)))
    assert (failed.detail["phase"], failed.detail["reason_code"]) == ("rolled_back", "install")
    assert "status 4" in failed.reason
    assert log.read_text().splitlines()[1:] == ["install 1.1 x", "rollback 1.1 x"]
    assert device.entry("tune").version == "1.0"
    slow = b"#!/bin/sh\n[ $CORDON_UPDATE_STEP = rollback ] || exec sleep 60\n"
    parts = {"kind": "script", "installer": "script", "seconds": 1}
    result = device.install(order(made.publish("tune", "1.2", slow, file="slow.sh", **parts)))
    assert result.detail["phase"] == "rolled_back"
    assert "did not end within 1 s" in result.reason


def test_an_interrupted_script_is_rolled_back_and_not_repeated(
    made: Repository, device: UpdateDevice, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def lose_power(name: str) -> None:
        if name == "install:after":
            device.stopping.set()
            raise StoppedError

    device.step = lose_power
    device.send("update.install", order(publish_script(made, "1.0", log)).params())
    device.commands.stop(60)
    device.stop()
    device.step = lambda _name: None
    device.start()
    result = device.ended()
    assert (result.detail["phase"], result.detail["reason_code"]) == ("rolled_back", "interrupted")
    assert log.read_text().splitlines() == ["install 1.0 x", "rollback 1.0 x"]


HOOK = """#!/bin/sh
# Two slots in a folder: `running` and `next` name one, each slot is a file with its version.
cd {place}
case "$1" in
install) echo "$3" > slot-b; echo slot-b > next ;;
version) cat "$(cat running)" ;;
confirm) cat running > kept ;;
rollback) cat kept > next ;;
esac
"""


class Machine:
    """A machine with two slots; a reboot stops the agent and starts it with a new boot id."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place.mkdir()
        self.place = place
        (place / "slot-a").write_text("1.0\n")
        for name in ("running", "next", "kept"):
            (place / name).write_text("slot-a\n")
        self.hook = place / "hook"
        self.hook.write_text(HOOK.format(place=place))
        self.hook.chmod(0o755)
        self.boots = 1
        self.falls_back = False
        self.device: UpdateDevice | None = None
        self.reboot_requests = threading.Semaphore(0)
        monkeypatch.setattr(base.RebootControl, "reboot", lambda _machine: self.reboot_requests.release())

    def reboot(self) -> None:
        """Reboots once the agent requested it."""
        assert self.device is not None
        assert self.reboot_requests.acquire(timeout=60)
        self.device.stop()
        chosen = "slot-a\n" if self.falls_back else (self.place / "next").read_text()
        (self.place / "running").write_text(chosen)
        self.boots += 1
        self.device.start(f"boot-{self.boots}")


@pytest.fixture
def machine(
    tmp_path: Path, made: Repository, server: UpdateServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    one = Machine(tmp_path / "machine", monkeypatch)
    one.device = UpdateDevice(tmp_path / "image-device", server.url, made.first_root, image_hook=str(one.hook))
    yield one
    one.device.stop()


def publish_image(made: Repository, version: str, **parts: Any) -> PublishedUpdate:
    image = {"kind": "image", "installer": "hook", "restart": "reboot", **parts}
    return made.publish("system", version, b"image " + version.encode(), file="system.img", **image)


def test_an_image_is_confirmed_after_its_reboot(made: Repository, machine: Machine) -> None:
    device = machine.device
    assert device is not None
    device.send("update.install", order(publish_image(made, "2.0")).params())
    machine.reboot()
    result = device.ended()
    assert (result.state, result.detail["phase"]) == (CommandState.SUCCEEDED, "confirmed"), result
    assert result.detail["before"] == "1.0"
    assert (machine.place / "kept").read_text() == "slot-b\n"
    assert device.entry("system").version == "2.0"
    assert "restarting" in device.phases()


def test_an_image_that_does_not_reach_the_broker_is_rolled_back(made: Repository, machine: Machine) -> None:
    device = machine.device
    assert device is not None
    device.broker = False
    device.send("update.install", order(publish_image(made, "2.0", health={"seconds": 1})).params())
    machine.reboot()  # the new version does not reach the broker
    machine.reboot()  # the previous version again
    device.broker = True
    result = device.ended()
    assert (result.detail["phase"], result.detail["reason_code"]) == ("rolled_back", "broker"), result
    assert device.entry("system").version == "1.0"


def test_an_image_that_does_not_boot_is_replaced_by_the_boot_loader(made: Repository, machine: Machine) -> None:
    device = machine.device
    assert device is not None
    machine.falls_back = True
    device.send("update.install", order(publish_image(made, "2.0")).params())
    machine.reboot()
    result = device.ended()
    assert (result.detail["phase"], result.detail["reason_code"]) == ("rolled_back", "install"), result
    assert "1.0 is there" in result.reason
    assert device.entry("system").version == "1.0"


needs_dpkg = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dpkg-deb") is None or shutil.which("gpg") is None,
    reason="needs root, dpkg-deb and gpg",
)
PACKAGE = {"kind": "package", "installer": "apt"}


@pytest.fixture
def debian(tmp_path: Path, made: Repository, server: UpdateServer) -> Iterator[UpdateDevice]:
    root = apt_root(tmp_path / "root")
    library = deb(tmp_path, "edge-lib", "3.0")
    source = signed_source(tmp_path / "source", [library], root)
    device = UpdateDevice(
        tmp_path / "apt-device", server.url, made.first_root, system=System(root=root, is_root_user=True)
    )
    yield device
    device.stop()
    stop_gpg_agent(source)


@needs_dpkg
def test_a_package_is_upgraded_with_its_dependencies_and_rolled_back_when_unhealthy(
    made: Repository, debian: UpdateDevice, tmp_path: Path
) -> None:
    root = debian.system.root
    place = root / "usr/share/edge-tool/version"

    def published(version: str, **parts: Any) -> PublishedUpdate:
        file = deb(tmp_path / version, "edge-tool", version, depends="edge-lib (>= 3)")
        return made.publish("edge-tool", version, file.read_bytes(), file=file.name, **PACKAGE, **parts)

    first = debian.install(order(published("1.0-1")))
    assert (first.state, first.detail["phase"]) == (CommandState.SUCCEEDED, "confirmed"), first
    assert (root / "usr/share/edge-lib/version").read_text() == "3.0"
    assert debian.install(order(published("1.1-1"))).detail["before"] == "1.0-1"
    assert place.read_text() == "1.1-1"
    check = {"command": ["/bin/false"], "seconds": 1}
    bad = debian.install(order(published("1.2-1", health=check)))
    assert (bad.detail["phase"], bad.detail["reason_code"]) == ("rolled_back", "health"), bad
    assert place.read_text() == "1.1-1"
    entry = debian.entry("edge-tool")
    assert (entry.version, entry.outcome) == ("1.1-1", "rolled_back")
    back = debian.go_back("edge-tool", "1.1-1")
    assert back.detail["phase"] == "rolled_back", back
    assert place.read_text() == "1.0-1"


@contextmanager
def apt_locked(root: Path) -> Iterator[None]:
    """Another process holds the locks of apt and dpkg: record locks do not exclude the own process."""
    code = (
        "import fcntl, sys\nfiles = [open(path, 'w') for path in sys.argv[1:]]\n"
        "for file in files: fcntl.lockf(file, fcntl.LOCK_EX)\nprint('locked', flush=True)\nsys.stdin.read()\n"
    )
    locks = [str(root / "var/lib/dpkg" / name) for name in ("lock-frontend", "lock")]
    argv = [sys.executable, "-c", code, *locks]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.kill()


@needs_dpkg
@pytest.mark.parametrize("was_installed", [True, False])
def test_a_lock_held_for_too_long_leaves_what_was_installed(
    made: Repository, debian: UpdateDevice, tmp_path: Path, *, was_installed: bool
) -> None:
    def published(version: str, **parts: Any) -> PublishedUpdate:
        file = deb(tmp_path / version, "edge-tool", version)
        return made.publish("edge-tool", version, file.read_bytes(), file=file.name, **PACKAGE, **parts)

    if was_installed:
        assert debian.install(order(published("1.0-1"))).detail["phase"] == "confirmed"
    with apt_locked(debian.system.root):
        result = debian.install(order(published("1.1-1", seconds=3)))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("rolled_back", "install"), result
    assert "lock" in result.reason
    entry = debian.entry("edge-tool")
    assert (entry.version, entry.outcome) == ("1.0-1" if was_installed else "", "rolled_back")
    assert debian.install(order(published("1.2-1"))).detail["phase"] == "confirmed"


@needs_dpkg
def test_a_mismatching_or_incomplete_package_is_not_installed(
    made: Repository, debian: UpdateDevice, tmp_path: Path
) -> None:
    other = deb(tmp_path, "edge-tool", "9.0").read_bytes()
    result = debian.install(order(made.publish("edge-tool", "1.0", other, file="edge-tool.deb", **PACKAGE)))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "mismatch"), result
    lacking = deb(tmp_path, "edge-tool", "2.0", depends="no-such-thing").read_bytes()
    result = debian.install(order(made.publish("edge-tool", "2.0", lacking, file="edge-tool.deb", **PACKAGE)))
    assert (result.detail["phase"], result.detail["reason_code"]) == ("failed", "install"), result
    assert not (debian.system.root / "usr/share/edge-tool").exists()


def test_a_package_of_another_manager_is_refused(made: Repository, server: UpdateServer, tmp_path: Path) -> None:
    device = UpdateDevice(tmp_path / "d", server.url, made.first_root, system=System(is_root_user=True))
    for word, suffix in ((InstallerKind.DNF, "rpm"), (InstallerKind.OPKG, "ipk")):
        parts = {"kind": "package", "installer": word.value}
        found = made.publish("edge-tool", f"1.{word.value}-1", b"package", file=f"edge-tool.{suffix}", **parts)
        result = device.install(order(found))
        assert (result.detail["phase"], result.detail["reason_code"]) == ("refused", "not_for_this_device"), result
    device.stop()
