"""What the running system says about an update of slots; it is asked before anything is written. Pure."""

from device_agent.updates.errors import UpdateError
from device_agent.updates.records import InstalledRelease, UpdateRecord
from schemas.updates import InstallerKind, UpdateRefusalCode, UpdateTarget


def with_found_release(record: UpdateRecord, kind: InstallerKind, version: str) -> UpdateRecord:
    """Returns the record with the version that the installer finds, as the one that a rollback returns to."""
    if not version or version == record.current_version:
        return record
    return record.model_copy(update={"current": InstalledRelease(version=version, installer=kind), "previous": None})


def runs_already(record: UpdateRecord, target: UpdateTarget, version: str) -> bool:
    """Returns whether the target runs: the slots were switched, and `install` would overwrite the good one.

    Args:
        record: of the running update; its current release ran when the update began.
        target: to install.
        version: of the running slot.

    Raises:
        UpdateError: a third version runs, so the other slot may be the one to go back to.
    """
    if version not in {target.version, record.current_version}:
        text = f"{version or 'an unknown version'} runs, neither {record.current_version} nor {target.version}"
        raise UpdateError(UpdateRefusalCode.INSTALL, text)
    return version == target.version
