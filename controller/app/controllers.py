"""This controller among the others on its store, with the fingerprints of the keys that all of them must have."""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller.adapters.keys import load_signing_key
from controller.adapters.sealing import KEY_SUFFIX, read_sealing_key
from controller.adapters.sql.controllers import SqlControllerBook, presence_pages
from controller.adapters.sql.store import SqlStore
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.keys import load_online
from controller.adapters.x509.folder import load
from controller.app.adapters import Adapters
from controller.ports.controllers import ControllerRecord
from controller.service.controllers import Controllers
from controller.service.fleet_state import FleetState
from controller.service.own_clients import OwnClients
from controller.service.policy.activation import PolicyActivation, SharedPolicies
from controller.service.presence import PresenceCheck, PresenceSweep
from controller.service.settings.settings import Settings
from schemas.pem import fingerprint
from schemas.signing import key_id

COMMAND_KEY: Final = "commands"  # what the key that signs commands is entered as
_DIGITS: Final = 16  # hex digits
_USE: Final = b"cordon: fingerprint of the key of second factors"


async def own_clients(settings: Settings, store: SqlStore) -> OwnClients:
    """The clients of this controller and of all that are known in its store."""
    own = OwnClients.of(settings.client_id, settings.mqtt.username)
    if settings.has_peers:
        own.add(await SqlControllerBook(store).records())
    return own


def policy_activation(settings: Settings, adapters: Adapters, fleet: FleetState) -> PolicyActivation:
    """What puts policies in force: those of the store, where several controllers share it."""
    shared = None
    if adapters.policy_sets is not None:
        shared = SharedPolicies(*adapters.policy_sets, settings.controller.own_name, lambda: adapters.leases.is_leader)
    return PolicyActivation(fleet, adapters.store, adapters.load_policies, adapters.log("app"), shared)


def connection_checks(
    settings: Settings, adapters: Adapters, fleet: FleetState
) -> tuple[PresenceCheck | None, PresenceSweep | None]:
    """What asks the broker who is connected: where messages are shared, these alone do not tell it."""
    if not settings.has_peers:
        return None, None
    broker, log = adapters.broker.control, adapters.log("presence")
    check = PresenceCheck(fleet, broker, log)
    fleet.follow(check)
    return check, PresenceSweep(check, broker, presence_pages(adapters.store), log)


async def controllers(
    settings: Settings, adapters: Adapters, clients: OwnClients, policy_files: Callable[[], str]
) -> Controllers:
    """Tells the other controllers of this one; `clients` gets theirs.

    Raises:
        ControllerError: a key cannot be used.
    """
    own = ControllerRecord(
        settings.controller.own_name,
        settings.client_id,
        adapters.clock.now(),
        settings.mqtt.username or "",
        key_fingerprints(settings) if settings.has_peers else {},
    )
    book = SqlControllerBook(adapters.store) if settings.has_peers else None
    found = Controllers(book, own, clients, policy_files, adapters.clock, adapters.log("controllers"))
    await found.start()
    return found


def key_fingerprints(settings: Settings) -> dict[str, str]:
    """Returns the fingerprints by what a key is for; of a secret key a keyed hash, which tells nothing of it.

    Raises:
        ControllerError: a key cannot be used.
    """
    found = {COMMAND_KEY: key_id(load_signing_key(settings.commands.signing_key).public_key())}
    if settings.commands.retiring_key is not None:
        found["commands (retiring)"] = key_id(load_signing_key(settings.commands.retiring_key).public_key())
    if settings.authority.folder is not None:
        material = load(settings.authority.folder, settings.authority.passphrase_file)
        found["authority (root)"] = fingerprint(material.root)
        found["authority (issuing)"] = fingerprint(material.issuing)
    factors = Path(f"{settings.store.beside}{KEY_SUFFIX}")
    if factors.exists():
        found["second factors"] = hmac.new(read_sealing_key(factors), _USE, hashlib.sha256).hexdigest()[:_DIGITS]
    if settings.updates.folder is not None:
        online = RepositoryFolder(settings.updates.folder).online
        for path in sorted(online.glob("*.pem")):
            found[f"updates ({path.stem})"] = load_online(online, path.stem).public_key.keyid[:_DIGITS]
    return found
