"""Operations with offline keys: create a repository, rotate keys, renew roles."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.keys import (
    MAX_KEYS,
    OFFLINE,
    ROLES,
    PassphrasePrompt,
    load_offline,
    make_offline,
    make_online,
)
from controller.adapters.tuf_repository.signing import expiry, sign_online, signed
from controller.ports.updates import UpdatesError


@dataclass(frozen=True, slots=True)
class RoleKeyPlan:
    """Number of keys of an offline role, and its threshold."""

    keys: int
    threshold: int

    def check(self, role: str) -> None:
        """Refuse what cannot work (UpdatesError)."""
        if not 1 <= self.threshold <= self.keys <= MAX_KEYS:
            text = f"{role}: {self.threshold} of {self.keys} keys cannot be; at least 1, at most all of {MAX_KEYS}"
            raise UpdatesError(text)


def init(
    folder: RepositoryFolder, keys: Path, plans: dict[str, RoleKeyPlan], ask: PassphrasePrompt, now: datetime
) -> None:
    """Creates the four roles: root and targets with keys in `keys`, snapshot and timestamp with keys of the controller.

    Raises:
        UpdatesError: there is a repository already, a passphrase is weak, or files cannot be written.
    """
    if folder.is_there:
        raise UpdatesError(
            f"{folder.base} holds a repository already; keys are replaced with cordon update keys rotate"
        )
    for role, plan in plans.items():
        plan.check(role)
    folder.make()
    with folder.locked():
        signers = {role: make_offline(keys, role, plans[role].keys, ask) for role in OFFLINE}
        online = {role: make_online(folder.online, role) for role in ("snapshot", "timestamp")}
        root = Root(version=1, expires=expiry("root", now), consistent_snapshot=True)
        for role in ROLES:
            for signer in signers.get(role) or [online[role]]:
                root.add_key(signer.public_key, role)
            root.roles[role].threshold = plans[role].threshold if role in plans else 1
        targets = Targets(version=1, expires=expiry("targets", now))
        folder.write(signed(targets, signers["targets"][: plans["targets"].threshold]))
        # The root comes last: a folder without one is not a repository, and may be made again.
        folder.write(signed(root, signers["root"][: plans["root"].threshold]))
        sign_online(folder, now)


def rotate(
    folder: RepositoryFolder, keys: Path, role: str, plan: RoleKeyPlan | None, ask: PassphrasePrompt, now: datetime
) -> list[str]:
    """Replaces all keys of a role; returns the ids of the new keys. `plan`: a new number and threshold.

    A new root is signed by enough of the old root keys and enough of the new ones, so that devices follow.

    Raises:
        UpdatesError: too few old keys, a weak passphrase, no such role.
    """
    if role not in ROLES:
        raise UpdatesError(f"no role {role}: there are {', '.join(ROLES)}")
    with folder.locked():
        root = folder.root().signed
        old = load_offline(keys, "root", root.roles["root"].keyids, root.roles["root"].threshold, ask)
        plan = plan or RoleKeyPlan(len(root.roles[role].keyids), root.roles[role].threshold)
        plan.check(role)
        fresh = make_offline(keys, role, plan.keys, ask) if role in OFFLINE else [make_online(folder.online, role)]
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for signer in fresh:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = plan.threshold if role in OFFLINE else 1
        new_root = [*old, *(fresh[: plan.threshold] if role == "root" else [])]
        if role == "targets":
            # Signed by the new keys before the root names them: a device sees the old pair or the new one.
            targets = folder.newest_targets().signed
            _publish_targets(folder, targets, fresh[: plan.threshold], now)
        _publish_root(folder, root, new_root, now)
        sign_online(folder, now, force=role in ("snapshot", "timestamp"))
        return [signer.public_key.keyid for signer in fresh]


def renew(folder: RepositoryFolder, keys: Path, role: str, ask: PassphrasePrompt, now: datetime) -> datetime:
    """Renews an offline role with the same keys and content; returns its expiry.

    Raises:
        UpdatesError: too few keys, or a role that renews itself.
    """
    if role not in OFFLINE:
        raise UpdatesError(
            f"{role} is signed by the running controller: only {' and '.join(OFFLINE)} are renewed by people"
        )
    with folder.locked():
        root = folder.root().signed
        signers = load_offline(keys, role, root.roles[role].keyids, root.roles[role].threshold, ask)
        if role == "root":
            _publish_root(folder, root, signers, now)
        else:
            _publish_targets(folder, folder.newest_targets().signed, signers, now)
        sign_online(folder, now)
        return expiry(role, now)


def change_targets(
    folder: RepositoryFolder, targets: Targets, keys: Path, ask: PassphrasePrompt, now: datetime
) -> None:
    """Signs and publishes changed targets; without online keys here, the running controller signs the other roles.

    Raises:
        UpdatesError: too few keys, or files that cannot be written.
    """
    root = folder.root().signed
    signers = load_offline(keys, "targets", root.roles["targets"].keyids, root.roles["targets"].threshold, ask)
    _publish_targets(folder, targets, signers, now)
    if has_online_keys(folder):
        sign_online(folder, now)


def has_online_keys(folder: RepositoryFolder) -> bool:
    """Whether this machine has the keys of the online roles."""
    return all((folder.online / f"{role}.pem").is_file() for role in ("snapshot", "timestamp"))


def _publish_root(folder: RepositoryFolder, root: Root, signers: Sequence[CryptoSigner], now: datetime) -> None:
    root.version = folder.versions("root")[-1] + 1
    root.expires = expiry("root", now)
    metadata: Metadata[Any] = signed(root, signers)
    folder.write(metadata)


def _publish_targets(
    folder: RepositoryFolder, targets: Targets, signers: Sequence[CryptoSigner], now: datetime
) -> None:
    targets.version = folder.versions("targets")[-1] + 1
    targets.expires = expiry("targets", now)
    folder.write(signed(targets, signers))
