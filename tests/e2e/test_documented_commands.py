"""The commands of the pages run in their order, in a temporary installation beside a stand-in.

A block that cannot run here has the line `*Not run by the tests: REASON.*` before it.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from tests.support.mosquitto import free_port
from tests.support.project_tree import ROOT
from tests.support.standin import StandInProcess

PAGES: Final = ("deployment", "identity", "broker", "containment")
SECONDS: Final = 90
_BLOCK: Final = re.compile(
    r"(?:\*Not run by the tests: (?P<reason>[^\n]+)\.\*\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_WITHOUT_CONFIG: Final = ("cordon init", "cordon ca init", "cordon broker ports --node-name")
_FINGERPRINT: Final = re.compile(r"\b[0-9a-f]{64}\b")
_TABLE: Final = re.compile(r"^\[(\w+)\]\n(?:(?!^\[).*\n?)*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    kind: str
    text: str
    reason: str

    @property
    def commands(self) -> Iterator[str]:
        for line in self.text.replace("\\\n", " ").splitlines():
            if command := line.partition("#")[0].strip():
                yield command


def blocks() -> list[Block]:
    return [
        Block(page, found["kind"], found["text"], found["reason"] or "")
        for page in PAGES
        for found in _BLOCK.finditer((ROOT / "docs" / f"{page}.md").read_text())
    ]


def test_every_command_is_run_or_says_why_not() -> None:
    commands = [one for one in blocks() if re.search(r"^(?:cordon|cordon-agent) ", one.text, re.MULTILINE)]
    assert len(commands) > 8
    assert {one.kind for one in commands} == {"sh"}, "a block of commands is marked as such"
    skipped = [(one.page, next(one.commands).partition(" --")[0]) for one in commands if one.reason]
    rotations = [("identity", "cordon ca rotate-issuing")] * 2  # as planned, and of a stolen key
    assert skipped == [*rotations, ("broker", "cordon broker ports")]


@dataclass
class Installation:
    """A temporary machine: `/etc/cordon` of the pages is a folder in `folder`, its addresses are local ones."""

    folder: Path
    stack: ExitStack
    api: int = field(default_factory=free_port)
    lists: int = field(default_factory=free_port)
    known: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    controller: subprocess.Popen[str] | None = None

    @property
    def etc(self) -> Path:
        return self.folder / "etc" / "cordon"

    def local(self, text: str) -> str:
        for there, here in (
            ("/etc/cordon", str(self.etc)),
            ("controller.example:8481", f"127.0.0.1:{self.lists}"),
            ("controller.example:8480", f"127.0.0.1:{self.api}"),
            ("0.0.0.0:8481", f"127.0.0.1:{self.lists}"),
            ("0.0.0.0:8480", f"127.0.0.1:{self.api}"),
            ("controller.example", "127.0.0.1"),
            ("192.0.2.11", "127.0.0.1"),
        ):
            text = text.replace(there, here)
        return _FINGERPRINT.sub(lambda _found: self.known["fingerprint"], text)

    def configure(self, toml: str) -> None:
        """Puts the tables of a block in place of those of `cordon.toml`."""
        path = self.etc / "cordon.toml"
        text = path.read_text()
        for table in _TABLE.finditer(self.local(toml)):
            text = _TABLE.sub(lambda found, name=table[1]: "" if found[1] == name else found[0], text)  # type: ignore[misc]
            text += f"\n{table[0]}"
        path.write_text(text)

    def start_broker(self) -> None:
        """A broker with the certificate that the page made for it; its addresses go into `cordon.toml`."""
        files: Any = SimpleNamespace(
            ca=self.folder / "emqx1" / "ca.pem",
            server_cert=self.folder / "emqx1" / "emqx1.example.pem",
            server_key=self.folder / "emqx1" / "emqx1.example.key",
        )
        emqx = self.stack.enter_context(StandInProcess(certs=files))
        (self.etc / "emqx.key").write_text(f"{emqx.key}:{emqx.secret}\n")
        path = self.etc / "cordon.toml"
        host, port = emqx.tls[0]
        text = path.read_text().replace("http://emqx1.example:18083", emqx.api_urls[0])
        path.write_text(text.replace("mqtts://emqx1.example:8883", f"mqtts://{host}:{port}"))

    def serve(self, argv: list[str]) -> None:
        self.start_broker()
        log = self.stack.enter_context((self.folder / "serve.log").open("w"))
        self.controller = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder)
        self.stack.callback(self._stop)
        assert self.controller.stdout is not None
        line = self.controller.stdout.readline()
        assert line, (self.folder / "serve.log").read_text()[-4000:]
        assert json.loads(line)["api"].endswith(f":{self.api}")

    def _stop(self) -> None:
        assert self.controller is not None
        self.controller.terminate()
        self.controller.communicate(timeout=SECONDS)

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("CORDON_")} | self.exported

    def run(self, command: str) -> None:
        words = shlex.split(self.local(command))
        if words[0] == "export":
            self.exported |= dict(word.split("=", 1) for word in words[1:])
            return
        program = Path(sys.executable).parent / words[0]
        argv = [str(program), *words[1:]]
        if words[:2] == ["cordon", "serve"]:
            self.serve(argv)
            return
        if words[0] == "cordon-agent":
            argv += ["--dir", str(self.folder / "device")]
        elif "--config" not in words and not command.startswith(_WITHOUT_CONFIG):
            argv += ["--config", str(self.etc / "cordon.toml")]
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, cwd=self.folder, timeout=SECONDS, env=self._environment()
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if words[:3] == ["cordon", "ca", "init"]:
            (self.known["fingerprint"],) = _FINGERPRINT.findall(done.stdout)
        if words[:3] == ["cordon", "enrol", "token"]:
            token = re.search(r"\bcordon[-_]enrol[-_]\S+|\bce_\S+", done.stdout) or re.search(r"\S{30,}", done.stdout)
            assert token is not None, done.stdout
            path = self.folder / "token"
            path.write_text(token[0])
            path.chmod(0o600)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_pages_run_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "emqx.secret").write_text("a secret that the broker gets later\n")
    (tmp_path / "emqx.secret").chmod(0o600)
    (tmp_path / "etc").mkdir()
    with ExitStack() as stack:
        machine = Installation(tmp_path, stack)
        configured = False
        for block in blocks():
            if block.reason:
                continue
            if block.kind == "toml" and block.page == "identity" and not configured:
                machine.configure(block.text)
                configured = True
            if block.kind == "sh":
                for command in block.commands:
                    machine.run(command)
