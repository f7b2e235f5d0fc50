"""Lists the pending updates of apt, and which of them the distribution's security sources have."""

import shutil
from collections.abc import Sequence
from typing import Final

from device_agent.collectors.software.pending_model import PendingUpdate, PendingUpdates
from device_agent.host.apt import (
    LISTS,
    AptRelease,
    AptTarget,
    AptUpgrade,
    apt_get,
    apt_list,
    apt_policy,
    index_targets,
    is_security_name,
    listed,
    newer_sources,
    parse_targets,
    read_release,
    release_file,
    source_priorities,
    upgrades,
)
from device_agent.host.execute import run
from device_agent.host.system import System

_SECONDS: Final = 50.0
_NAMES_AT_ONCE: Final = 200
# The priority of an installed version: nothing with a lower one is installed instead.
_INSTALLED_PRIORITY: Final = 100
_NO_AGE: Final = "apt does not record the age of an update"


def list_apt(system: System) -> PendingUpdates:
    """Asks apt for the pending updates.

    They are known as far as every configured list was fetched; the security updates, if the distribution's security
    source is among them, apt may install from it, and no update waits in a source that does not tell them.

    Raises:
        ExecuteError: apt failed.
    """
    targets = parse_targets(run(index_targets(system), seconds=_SECONDS).stdout)
    releases = {target: _read(system, target) for target in targets}
    waiting = _waiting(system)
    every = tuple(sorted({_update(upgrade) for upgrade in waiting}))
    hidden = next((_never_fetched(target) for target, release in releases.items() if release is None), "")
    secure = [target for target, release in releases.items() if _is_security(target, release)]
    reason = _why_unknown(system, secure, releases)
    if reason:
        return PendingUpdates(every, None, reason=reason, hidden=hidden)
    security, untold = _split(system, waiting, secure, releases)
    if untold and not security:
        return PendingUpdates(every, None, reason=untold, hidden=hidden)
    files = {file.name: None for target in secure if (file := release_file(system, target)) is not None}
    return PendingUpdates(every, tuple(sorted(security)), reason=_NO_AGE, hidden=hidden, security_lists=tuple(files))


def why_too_old(system: System, pending: PendingUpdates, oldest: float, now: float) -> str:
    """Returns why the Release files of the security sources do not tell the present; empty if they do.

    A file that did not change is not written again, so that its Date is the only evidence for its own source. Security
    suites are made anew every few days at least.
    """
    for name in pending.security_lists:
        made_at = read_release(system.path(f"{LISTS}/{name}")).made_at
        if made_at is None:
            return f"{name} has no date"
        if made_at < oldest:
            return f"{name} is older than a week: run apt-get update"
        if made_at > now + 86_400:
            return f"{name} is of the future: the clock or the file is wrong"
    return ""


def _read(system: System, target: AptTarget) -> AptRelease | None:
    file = release_file(system, target)
    return read_release(file) if file is not None else None


def _never_fetched(target: AptTarget) -> str:
    return f"the list {target.release} of {target.site} was never fetched: run apt-get update"


def _is_security(target: AptTarget, release: AptRelease | None) -> bool:
    return is_security_name(target.release) or (release is not None and release.is_security)


def _why_unknown(system: System, secure: Sequence[AptTarget], releases: dict[AptTarget, AptRelease | None]) -> str:
    if not secure:
        return "no source of security updates is configured"
    for target in secure:
        if releases[target] is None:
            return _never_fetched(target)
    priorities = source_priorities(run(apt_policy(system), seconds=_SECONDS).stdout)
    for target in secure:
        priority = priorities.get((target.site, target.release))
        if priority is None:
            return f"apt does not use the list {target.release} of {target.site}"
        if priority < _INSTALLED_PRIORITY:
            return f"apt installs nothing from {target.release}: its priority is {priority}"
    return ""


def _waiting(system: System) -> tuple[AptUpgrade, ...]:
    if shutil.which("apt"):
        return listed(run(apt_list(system), seconds=_SECONDS).stdout)
    return upgrades(run(apt_get(system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"), seconds=_SECONDS).stdout)


def _update(upgrade: AptUpgrade) -> PendingUpdate:
    return PendingUpdate(upgrade.name, upgrade.old, upgrade.new)


def _split(
    system: System,
    waiting: Sequence[AptUpgrade],
    secure: Sequence[AptTarget],
    releases: dict[AptTarget, AptRelease | None],
) -> tuple[set[PendingUpdate], str]:
    """Returns the security updates, and why another waiting one may be one too.

    A later version from elsewhere, as of a point release, includes the fix that waits.
    """
    names = [upgrade.name for upgrade in waiting]
    sources: dict[str, set[tuple[str, str]]] = {}
    for start in range(0, len(names), _NAMES_AT_ONCE):
        output = run(apt_policy(system, *names[start : start + _NAMES_AT_ONCE]), seconds=_SECONDS).stdout
        sources.update(newer_sources(output))
    places = {(target.site, target.release) for target in secure}
    telling = {release.origin for target in secure if (release := releases[target]) is not None}
    origins = {(target.site, target.release): release.origin for target, release in releases.items() if release}
    security, untold = set(), ""
    for upgrade in waiting:
        places_of_it = sources.get(upgrade.name, set())
        if upgrade.is_security or places_of_it & places:
            security.add(_update(upgrade))
        elif not any(origins.get(place) in telling for place in places_of_it):
            untold = f"{upgrade.name} waits in a source that does not tell security updates"
    return security, untold
