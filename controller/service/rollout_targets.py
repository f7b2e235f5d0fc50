"""Looks up in the signed repository what an operator or a policy wants to roll out."""

import asyncio

from controller.domain.rollout_values import Target
from controller.ports.rollouts import TargetError
from controller.ports.updates import Published, UpdateRepository, UpdatesError


class PublishedTargets:
    """`controller.ports.rollouts.Targets` over the repository of updates; `None`: there is none."""

    def __init__(self, repository: UpdateRepository | None) -> None:
        self._repository = repository

    async def find(self, text: str) -> Target:
        """See `Targets.find`."""
        if self._repository is None:
            raise TargetError("there is no repository of updates: `cordon update init` makes one")
        try:
            published = await asyncio.to_thread(self._repository.published)
        except UpdatesError as e:
            raise TargetError(str(e)) from e
        return pick(published, text)


def pick(published: tuple[Published, ...], text: str) -> Target:
    """The one of these that `text` means.

    Raises:
        TargetError: there is none, or more than one.
    """
    fits = [one for one in published if text in (one.path, f"{one.target.name}/{one.target.version}", one.target.name)]
    if not fits:
        raise TargetError(f"{text} is not published: `cordon update list` tells what is, by NAME/VERSION")
    if len(fits) > 1:
        names = ", ".join(one.path for one in fits)
        raise TargetError(f"{text} means {len(fits)} targets: name one of {names}")
    found = fits[0]
    target = found.target
    return Target(
        path=found.path,
        name=target.name,
        version=target.version,
        sha256=found.sha256,
        length=found.length,
        classes=tuple(target.classes),
        hardware=tuple(target.hardware),
        has_check=not target.health.is_empty,
    )
