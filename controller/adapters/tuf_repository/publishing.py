"""Publishes and withdraws versions."""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api.metadata import TargetFile

from controller.adapters.files import save_file
from controller.adapters.tuf_repository.ceremony import change_targets
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.keys import PassphrasePrompt
from controller.adapters.tuf_repository.signing import published_targets, verified_targets
from controller.domain.update_names import installability_fault, requirement_fault
from controller.ports.updates import PublishedUpdate, UpdatesError
from schemas.file_sets import ARCHIVES, ArchiveError, read_members
from schemas.updates import MAX_INSTALLED_BYTES, MAX_TARGET_BYTES, UpdateTarget, target_path

_CUSTOM: Final = "custom"


def publish(
    folder: RepositoryFolder, file: Path, target: UpdateTarget, keys: Path, ask: PassphrasePrompt, now: datetime
) -> PublishedUpdate:
    """Copies a file into the repository and signs it with its description.

    Raises:
        UpdatesError: this version is published already, no device can install it, or too few keys.
    """
    try:
        path = target_path(target.name, target.version, file.name)
    except ValueError as e:
        raise UpdatesError(f"{file.name}: cannot be published under this name: {e}") from e
    fault = installability_fault(target, file.name)
    if fault:
        raise UpdatesError(f"{file.name}: cannot be installed: {fault}")
    with folder.locked():
        targets = verified_targets(folder, folder.root().signed).signed
        prefix = f"{target.name}/{target.version}/"
        if any(one.startswith(prefix) for one in targets.targets):
            text = f"{target.name} {target.version} is published already; a version never changes, take another"
            raise UpdatesError(text)
        fault = requirement_fault(target, published_targets(targets).values())
        if fault:
            raise UpdatesError(f"{file.name}: no device could check what it requires: {fault}")
        try:
            size = file.stat().st_size
            if not 0 < size <= MAX_TARGET_BYTES:
                raise UpdatesError(f"{file}: {size} bytes; a target has between 1 and {MAX_TARGET_BYTES}")
            info = TargetFile.from_file(path, str(file), ["sha256"])
            info.unrecognized_fields[_CUSTOM] = target.model_dump(mode="json")
            _copy(file, folder.targets / target.name / target.version / f"{info.hashes['sha256']}.{file.name}")
        except OSError as e:
            raise UpdatesError(f"{file}: cannot be published: {e.strerror}") from e
        targets.targets[path] = info
        change_targets(folder, targets, keys, ask, now)
        return PublishedUpdate(path, info.hashes["sha256"], info.length, target)


def withdraw(
    folder: RepositoryFolder, name: str, version: str, keys: Path, ask: PassphrasePrompt, now: datetime
) -> str:
    """Withdraws a version, so that no device installs it; returns its path.

    Raises:
        UpdatesError: it is not published, or too few keys.
    """
    with folder.locked():
        targets = verified_targets(folder, folder.root().signed).signed
        prefix = f"{name}/{version}/"
        found = next((path for path in targets.targets if path.startswith(prefix)), None)
        if found is None:
            raise UpdatesError(f"{name} {version} is not published")
        del targets.targets[found]
        change_targets(folder, targets, keys, ask, now)
        # After the metadata: a device that still reads the old one finds the file until then.
        shutil.rmtree(folder.targets / name / version, ignore_errors=True)
        return found


def unpacked_bytes(file: Path) -> int:
    """Returns the unpacked size of an archive, or the size of another file.

    Raises:
        UpdatesError: an archive that devices would refuse.
    """
    if not file.name.endswith(ARCHIVES):
        return file.stat().st_size if file.is_file() else 0
    try:
        with file.open("rb") as archive:
            # The content is read, since a device refuses a file that ends early.
            return sum(len(piece) for member in read_members(archive, MAX_INSTALLED_BYTES) for piece in member.content)
    except (ArchiveError, OSError) as e:
        raise UpdatesError(f"{file}: not an archive that devices would unpack: {e}") from e


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read:
        save_file(to, lambda file: shutil.copyfileobj(read, file, 1024 * 1024), 0o644, replace=True)
