"""What the command line does without a running controller: over files, the store, the authority and the broker.

Adapters are imported where they are used: a command loads no more than it needs.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from tuf.api.metadata import Root

    from controller.adapters.sql.store import SqlStore
    from controller.adapters.sqlite.restore_losses import RestoreLoss
    from controller.adapters.tuf_repository.keys import PassphrasePrompt
    from controller.domain.broker.access import AccessTemplates
    from controller.domain.effects import AuditEntry
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.knowledge import Knowledge
    from controller.domain.policy.model import Policy, PolicySet
    from controller.ports.updates import MetadataRoleState, PublishedUpdate
    from controller.service.broker.setup import SetupOperations
    from controller.service.settings.settings import Settings, StoreSettings
    from schemas.secret_sources import SecretSource
    from schemas.updates import UpdateTarget


# Policies and access templates


def read_policies(paths: Sequence[Path], language: "CelEnvironment") -> "tuple[tuple[Policy, ...], str]":
    """The policies of files and folders, and the version of the set.

    Raises:
        PolicyError: with every mistake in every file.
    """
    from controller.adapters.policies.loader import read_policies

    return read_policies(paths, language)


def load_policies(paths: Sequence[Path], language: "CelEnvironment") -> "PolicySet":
    """As `read_policies`, as one set that devices are evaluated with.

    Raises:
        PolicyError: with every mistake in every file, or no rule is about reports.
    """
    from controller.adapters.policies.loader import load_policies

    return load_policies(paths, language)


def read_knowledge(path: Path | None = None) -> "Knowledge":
    """The knowledge in a file, or that which ships with Cordon.

    Raises:
        KnowledgeError: the file cannot be read, or is no knowledge file.
    """
    from controller.adapters.policies.knowledge import MAX_KNOWLEDGE_BYTES, parse_knowledge
    from controller.packs import shipped_knowledge
    from controller.ports.policies import KnowledgeError

    if path is None:
        return parse_knowledge(shipped_knowledge())
    try:
        with path.open("rb") as file:
            return parse_knowledge(file.read(MAX_KNOWLEDGE_BYTES + 1))
    except OSError as e:
        raise KnowledgeError(f"{path}: cannot be read: {e.strerror}") from e


def parse_templates(text: str, source: str) -> "AccessTemplates":
    """Access templates from a file's text.

    Raises:
        PolicyError: with every mistake.
    """
    from controller.adapters.access.templates import parse_templates

    return parse_templates(text, source)


# Keys and files


def read_private_file(path: Path, what: str, *, most: int) -> str:
    """The content of a file of at most `most` bytes that only its owner can read; `what` names the option in errors.

    Raises:
        SettingsError: it cannot be read, or others can read it.
    """
    from controller.adapters.files import read_secret

    return read_secret(path, what, most=most)


def read_secret(source: str, what: str, *, may_be_open: bool = False) -> str:
    """A password, passphrase or token from where an option says that it is; `what` names the option in errors.

    Raises:
        SettingsError: it cannot be had, or others can read its file although it may not be open to them.
    """
    from controller.adapters.files import read_passphrase
    from controller.ports.errors import SettingsError
    from schemas.secret_sources import secret_source

    try:
        return read_passphrase(secret_source(source), what, may_be_open=may_be_open)
    except ValueError as e:
        raise SettingsError(f"{what}: {e}") from e


def write_new_file(path: Path, content: str, mode: int) -> None:
    """Writes a file durably.

    Raises:
        OSError: it exists, or cannot be written.
    """
    from controller.adapters.files import write_file

    write_file(path, content.encode(), mode, replace=False)


def create_signing_key(path: Path) -> "Ed25519PrivateKey":
    """Makes the key that signs commands.

    Raises:
        SettingsError: the file exists, or cannot be written.
    """
    from controller.adapters.keys import create_signing_key

    return create_signing_key(path)


def load_signing_key(source: "SecretSource") -> "Ed25519PrivateKey":
    """The key that signs commands.

    Raises:
        SettingsError: it cannot be read, or others can read it.
    """
    from controller.adapters.keys import load_signing_key

    return load_signing_key(source)


# The store


@contextlib.asynccontextmanager
async def open_store(place: "Path | StoreSettings") -> "AsyncIterator[SqlStore]":
    """The store, also while a controller runs; it is created if absent. As root, with the rights of its folder's owner.

    Raises:
        ControllerError: it cannot be opened.
    """
    from controller.adapters.files import as_owner
    from controller.adapters.sqlite.store import open_store as open_sqlite

    url = None if isinstance(place, Path) else place.url
    if url is not None:
        from controller.adapters.postgres.store import open_store as open_postgres
        from controller.app.adapters import postgres_address

        assert not isinstance(place, Path)
        database = await open_postgres(postgres_address(place), name=None, now=time.time, log=lambda _text, _more: None)
        try:
            yield database
        finally:
            await database.close()
        return
    path = place if isinstance(place, Path) else place.path
    with as_owner(path.parent) if path.parent.is_dir() else contextlib.nullcontext():
        store = await open_sqlite(path, now=time.time, log=lambda _text, _more: None)
        try:
            yield store
        finally:
            await store.close()


def back_up_store(path: Path, target: Path) -> int:
    """Copies the store to a new file and verifies the copy; returns its bytes.

    Raises:
        StoreError: not copied.
    """
    from controller.adapters.sqlite.restore import back_up_file

    return back_up_file(path, target)


def restore_losses(source: Path, path: Path) -> "tuple[Sequence[RestoreLoss], bool]":
    """What the present store at `path` has and the backup `source` has not; and whether revocations are kept beside it.

    Raises:
        StoreError: one of them cannot be read.
    """
    from controller.adapters.revocation_marks import marks_path
    from controller.adapters.sqlite.restore_losses import losses_between

    return losses_between(path, source), marks_path(path.resolve()).exists()


def restore_store(source: Path, path: Path) -> Path | None:
    """Replaces the store of a stopped controller by a verified backup; returns where the former store is kept.

    Raises:
        StoreError: not restored; the store is as it was.
    """
    from controller.adapters.sqlite.restore import restore_file

    return restore_file(source, path, time.time())


async def keys_of_others(settings: "Settings") -> str:
    """The id of the key with which other controllers on the same store sign commands; empty if there are none."""
    if not settings.has_peers:
        return ""
    from controller.adapters.sql.controllers import SqlControllerBook
    from controller.app.controllers import COMMAND_KEY

    async with open_store(settings.store) as store:
        records = await SqlControllerBook(store).records()
    others = (one.keys.get(COMMAND_KEY, "") for one in records if one.name != settings.controller.own_name)
    return next((key for key in others if key), "")


# The broker


@contextlib.asynccontextmanager
async def open_broker_setup(settings: "Settings") -> "AsyncIterator[SetupOperations]":
    """Sets the broker up; the state before is kept in the store.

    Raises:
        ControllerError: a file of the configuration cannot be used.
    """
    from controller.adapters.emqx.setup.setup import EmqxSetup
    from controller.adapters.system import SystemClock
    from controller.app.adapters import open_broker
    from controller.app.broker import setup_operations
    from controller.app.controllers import own_clients
    from controller.ports.store import StoreWrites

    clock = SystemClock()
    async with open_broker(settings) as broker, open_store(settings.store) as store:

        async def record(entry: "AuditEntry") -> None:
            await store.commit(StoreWrites(audit=((clock.now(), entry),)))

        own = await own_clients(settings, store)
        yield setup_operations(EmqxSetup(broker.api), store, record, clock, settings, own)


def probe_ports(targets: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bool]:
    """Whether a TCP connection to each host and port was made."""
    from controller.adapters.probes import reachable

    return asyncio.run(reachable(targets))


# The repository of updates


class UpdatesFolder:
    """A repository of updates, changed by people with offline keys, which lie in the folder `keys` of each call.

    Raises:
        UpdatesError: from every method, when a file or a key cannot be used.
    """

    def __init__(self, base: Path) -> None:
        from controller.adapters.tuf_repository.folder import RepositoryFolder

        self._folder = RepositoryFolder(base)
        self.base = base
        self.metadata = self._folder.metadata
        self.served = self._folder.served

    def create(self, keys: Path, root: tuple[int, int], targets: tuple[int, int], ask: "PassphrasePrompt") -> None:
        """Makes the repository; `root` and `targets` are numbers of keys, and of those that have to sign."""
        from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, init

        init(self._folder, keys, {"root": RoleKeyPlan(*root), "targets": RoleKeyPlan(*targets)}, ask, _now())

    def root(self) -> "Root":
        """The newest root: which keys sign which role."""
        return self._folder.root().signed

    def rotate(self, keys: Path, role: str, plan: tuple[int, int] | None, ask: "PassphrasePrompt") -> list[str]:
        """Replaces all keys of a role; `plan` is another number and threshold. Returns the ids of the new keys."""
        from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, rotate

        return rotate(self._folder, keys, role, None if plan is None else RoleKeyPlan(*plan), ask, _now())

    def renew(self, keys: Path, role: str, ask: "PassphrasePrompt") -> datetime:
        """Signs an offline role again; returns its new end."""
        from controller.adapters.tuf_repository.ceremony import renew

        return renew(self._folder, keys, role, ask, _now())

    @property
    def has_online_keys(self) -> bool:
        """Whether the keys of snapshot and timestamp are here, and not at a controller elsewhere."""
        from controller.adapters.tuf_repository.ceremony import has_online_keys

        return has_online_keys(self._folder)

    def publish(self, file: Path, target: "UpdateTarget", keys: Path, ask: "PassphrasePrompt") -> "PublishedUpdate":
        """Copies a file into the repository and signs what it is."""
        from controller.adapters.tuf_repository.publishing import publish

        return publish(self._folder, file, target, keys, ask, _now())

    def withdraw(self, name: str, version: str, keys: Path, ask: "PassphrasePrompt") -> str:
        """Removes a version; returns the path that it had."""
        from controller.adapters.tuf_repository.publishing import withdraw

        return withdraw(self._folder, name, version, keys, ask, _now())

    def published(self) -> "tuple[PublishedUpdate, ...]":
        from controller.adapters.tuf_repository.repository import TufUpdateRepository

        return TufUpdateRepository(self.base).published()

    def roles(self) -> "tuple[MetadataRoleState, ...]":
        from controller.adapters.tuf_repository.repository import TufUpdateRepository

        return TufUpdateRepository(self.base).roles()

    def warnings(self) -> tuple[str, ...]:
        """What offline keys have to sign soon."""
        from controller.adapters.tuf_repository.signing import warnings

        return warnings(self._folder, _now())


def unpacked_bytes(file: Path) -> int:
    """The bytes of an archive's members, or of another file.

    Raises:
        UpdatesError: an archive that devices would refuse.
    """
    from controller.adapters.tuf_repository.publishing import unpacked_bytes

    return unpacked_bytes(file)


def _now() -> datetime:
    return datetime.now(UTC)
