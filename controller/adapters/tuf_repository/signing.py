"""Signing of metadata: lifetimes, thresholds, and the online roles."""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.keys import load_online
from controller.ports.updates import UpdatesError
from schemas.updates import UpdateTarget

# How long a role is valid without a new signature: short where the controller signs, long where people have to meet.
LIFETIMES: Final[Mapping[str, timedelta]] = {
    "root": timedelta(days=365),
    "targets": timedelta(days=180),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=1),
}
RENEW_AT: Final = 0.5  # of a lifetime: the remainder at which an online role is signed again
WARN_BEFORE: Final = timedelta(days=30)  # an offline role ends


def expiry(role: str, now: datetime) -> datetime:
    """Returns the expiry of a role that is signed at `now`."""
    return (now + LIFETIMES[role]).replace(microsecond=0)


def signed(what: Any, signers: Iterable[CryptoSigner]) -> Metadata[Any]:
    """Returns the metadata with a signature of each signer."""
    metadata: Metadata[Any] = Metadata(what)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def verified_targets(folder: RepositoryFolder, root: Root) -> Metadata[Targets]:
    """Returns the latest targets role, verified by this root.

    Raises:
        UpdatesError: too few valid signatures.
    """
    targets = folder.newest_targets()
    try:
        root.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
    except (RepositoryError, ValueError) as e:
        text = f"targets {targets.signed.version} is not signed by enough keys: {e}; nothing is published with it"
        raise UpdatesError(text) from e
    return targets


def published_targets(targets: Targets) -> dict[str, UpdateTarget]:
    """Returns the targets by path, without entries of other programs."""
    found = {}
    for path, info in targets.targets.items():
        with contextlib.suppress(ValidationError):
            found[path] = UpdateTarget.model_validate(info.custom)
    return found


def sign_online(folder: RepositoryFolder, now: datetime, *, force: bool = False) -> tuple[str, ...]:
    """Updates and renews snapshot and timestamp; returns the signed roles.

    A snapshot is written before the timestamp that names it, for devices that read meanwhile.

    Raises:
        UpdatesError: an online key is missing, or the targets role is not signed well.
    """
    root = folder.root().signed
    targets = verified_targets(folder, root)
    snapshot, timestamp = folder.snapshot(), folder.timestamp()
    done: list[str] = []
    wanted = {"targets.json": MetaFile(version=targets.signed.version)}
    is_behind = snapshot is None or snapshot.signed.meta != wanted or not is_signed(root, snapshot)
    if force or is_behind or snapshot is None or _ends_soon(snapshot.signed, now):
        version = 1 if snapshot is None else snapshot.signed.version + 1
        fresh = Snapshot(version=version, expires=expiry("snapshot", now), meta=wanted)
        snapshot = signed(fresh, [_online(folder, root, "snapshot")])
        folder.write(snapshot)
        done.append("snapshot")
    is_old = timestamp is None or timestamp.signed.snapshot_meta.version != snapshot.signed.version
    if force or is_old or timestamp is None or _ends_soon(timestamp.signed, now) or not is_signed(root, timestamp):
        version = 1 if timestamp is None else timestamp.signed.version + 1
        meta = MetaFile(version=snapshot.signed.version)
        new = Timestamp(version=version, expires=expiry("timestamp", now), snapshot_meta=meta)
        folder.write(signed(new, [_online(folder, root, "timestamp")]))
        done.append("timestamp")
    folder.forget_old_snapshots()
    return tuple(done)


def warnings(folder: RepositoryFolder, now: datetime) -> tuple[str, ...]:
    """Returns warnings about roles that offline keys have to sign soon."""
    told = []
    for role, metadata in (("root", folder.root()), ("targets", folder.newest_targets())):
        left = metadata.signed.expires - now
        if left <= timedelta(0):
            told.append(f"{role} has ended: no device takes an update until it is signed again")
        elif left < WARN_BEFORE:
            how = "cordon update keys renew root" if role == "root" else "cordon update keys renew targets"
            told.append(f"{role} ends in {left.days} days: sign it again with {how}")
    return tuple(told)


def is_signed(root: Root, metadata: Metadata[Any]) -> bool:
    """Whether enough keys of this root signed the metadata."""
    try:
        root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


def _ends_soon(what: Snapshot | Timestamp, now: datetime) -> bool:
    return what.expires - now < LIFETIMES[what.type] * RENEW_AT


def _online(folder: RepositoryFolder, root: Root, role: str) -> CryptoSigner:
    signer = load_online(folder.online, role)
    if signer.public_key.keyid not in root.roles[role].keyids:
        text = f"{folder.online}/{role}.pem is not the key that the root names: cordon update keys rotate {role}"
        raise UpdatesError(text)
    return signer


def at(seconds: float) -> datetime:
    """Returns Unix seconds as a time of TUF."""
    return datetime.fromtimestamp(int(seconds), UTC)
