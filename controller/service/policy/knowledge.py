"""The knowledge in force, shipped or imported, as it is on the present day."""

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.policy.knowledge import PAYLOAD_TYPE, Knowledge, KnowledgeOnDay
from controller.ports.log import Log
from controller.ports.policies import KnowledgeError
from controller.ports.store import Store, StoredKnowledge
from controller.service.fleet_state import FleetState
from controller.service.policy.activation import PolicyActivation
from controller.service.unit_of_work import UnitOfWork
from schemas.signing import to_be_signed

EVERY: Final = 60.0  # seconds between two looks at the calendar
_ANYWAY: Final = "cordon knowledge import --force"
_AHEAD: Final = timedelta(days=1)  # how far the clock of whoever made a file may be ahead


@dataclass(frozen=True, slots=True)
class KnowledgeImport:
    """A knowledge file from an operator; `key` is the id of the key that signed its bytes, `signature` base64.

    Both are empty if it is not signed. `force`: although it is older, or would contain too many devices.
    """

    raw: bytes
    key: str = ""
    signature: str = ""
    force: bool = False


class KnowledgeService:
    """Loads, replaces and ages the knowledge.

    Args:
        fleet: judges by it.
        store: keeps what was imported.
        activation: refuses what would contain too many devices.
        shipped: the file of this version of Cordon.
        parse: reads a file; raises KnowledgeError.
        keys: keys by their id, one of which has to sign what is imported; without any, the caller's scope is enough.
        log: of the part.

    Attributes:
        imported: what was imported, None while the shipped file is in force.
        unused: why knowledge that was imported is not in force; empty if it is.
    """

    def __init__(
        self,
        fleet: FleetState,
        store: Store,
        activation: PolicyActivation,
        shipped: bytes,
        parse: Callable[[bytes], Knowledge],
        keys: Mapping[str, Ed25519PublicKey],
        log: Log,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._activation = activation
        self._shipped = parse(shipped)
        self._parse = parse
        self._keys = dict(keys)
        self._log = log
        self._one_at_a_time = asyncio.Lock()
        self._knowledge = self._shipped
        self._stored: StoredKnowledge | None = None
        self.imported: StoredKnowledge | None = None
        self.unused = ""

    @property
    def present(self) -> KnowledgeOnDay:
        """The knowledge in force."""
        return self._fleet.policies.knowledge

    async def load(self) -> None:
        """Puts the newer of the shipped and the imported knowledge in force, at the start.

        An imported file counts too if it was forced over the shipped one, and none that the keys of now do not cover.
        """
        stored = self._stored = await self._store.knowledge()
        self._knowledge, self.imported, self.unused = self._shipped, None, ""
        if stored is not None:
            try:
                found = self._parse(stored.text.encode())
                self._check_signer(stored.signed_by)
            except KnowledgeError as e:
                self.unused = f"imported knowledge is not used, that of this version is in force: {e}"
                self._log("stored knowledge cannot be used", {"alert": True, "error": str(e)})
            else:
                if self._shipped.version <= max(found.version, stored.forced_over):
                    self._knowledge, self.imported = found, stored
        self._fleet.set_knowledge(self._knowledge.on(self._today()))

    async def load_again(self) -> None:
        """Puts in force what another controller has imported meanwhile."""
        if await self._store.knowledge() != self._stored:
            await self.load()

    async def run(self) -> None:
        """Runs until cancelled: entries get too old, supports end."""
        while True:
            await asyncio.sleep(EVERY)
            self.refresh()

    def refresh(self) -> None:
        """Puts the knowledge of the present day in force; devices are evaluated again at their next message."""
        before, now = self.present, self._knowledge.on(self._today())
        if now.version == before.version:
            return
        self._fleet.set_knowledge(now)
        expired = [one.label for one in self._knowledge.entries if now.is_too_old(one) and not before.is_too_old(one)]
        if expired:
            self._log("knowledge is too old: import newer knowledge", {"alert": True, "entries": expired[:20]})

    async def replace(self, file: KnowledgeImport, by: str) -> None:
        """Replaces the knowledge, on disk before it counts; a file that is in force already changes nothing.

        Raises:
            KnowledgeError: not a knowledge file, not signed by one of the keys, or, unless forced, older.
            PolicyTooBroadError: rules would contain too many devices.
        """
        async with self._one_at_a_time:
            signed_by = self._signer(file)
            fresh, before = self._parse(file.raw), self._knowledge
            today = self._today()
            if fresh.issued > today + _AHEAD:
                raise KnowledgeError(f"it was issued on {fresh.issued}, and today is {today}")
            if fresh.digest == before.digest:
                return
            is_older = fresh.version <= before.version or fresh.issued < before.issued
            if is_older and not file.force:
                raise KnowledgeError(
                    f"version {fresh.version} of {fresh.issued} is not newer than version {before.version} of "
                    f"{before.issued}, which is in force: `{_ANYWAY}` takes it all the same"
                )
            candidate = self._fleet.policies.with_knowledge(fresh.on(today))
            if not file.force:
                await self._activation.check_blast_radius(candidate, _ANYWAY)
            now = self._fleet.clock.now()
            is_over = is_older or fresh.version < self._shipped.version
            forced_over = max(before.version, self._shipped.version) if is_over else 0
            stored = StoredKnowledge(file.raw.decode(), forced_over, signed_by, by, now)
            detail: dict[str, object] = {
                "before": before.version,
                "after": fresh.version,
                "issued": fresh.issued.isoformat(),
                "sha256": fresh.digest,
                "signed_by": signed_by,
                "forced": file.force,
            }
            batch = UnitOfWork(audit=[(now, AuditEntry(AuditKind.KNOWLEDGE_REPLACED, "", by, "", detail))])
            batch.knowledge = stored
            await self._fleet.commit(batch)
            self._knowledge, self.imported, self._stored, self.unused = fresh, stored, stored, ""
            self._fleet.set_knowledge(fresh.on(self._today()))

    def _check_signer(self, key: str) -> None:
        """Refuses a file of an earlier import, signed by `key` then, where the keys of now do not cover it."""
        if self._keys and key not in self._keys:
            by = f"signed with the key {key}" if key else "not signed"
            raise KnowledgeError(f"it is {by}, and [policy] knowledge_keys has other keys")

    def _signer(self, file: KnowledgeImport) -> str:
        """Returns the id of the key whose signature was checked, empty where none is needed."""
        if not self._keys and not file.signature:
            return ""
        if not file.signature:
            raise KnowledgeError("it is not signed, and [policy] knowledge_keys asks for a signature")
        key = self._keys.get(file.key)
        if key is None:
            raise KnowledgeError(f"it is signed with the key {file.key}, which is not among [policy] knowledge_keys")
        try:
            key.verify(base64.b64decode(file.signature, validate=True), to_be_signed(PAYLOAD_TYPE, file.raw))
        except (InvalidSignature, binascii.Error) as e:
            raise KnowledgeError("its signature is not of this key and file") from e
        return file.key

    def _today(self) -> date:
        return datetime.fromtimestamp(self._fleet.clock.now(), UTC).date()
