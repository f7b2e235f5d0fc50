"""Published updates, and the state of their signed metadata."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool

from controller.api.auth import scope
from controller.api.context import RolloutsDep, RolloutServices
from controller.api.errors import ApiError, problems
from controller.api.fields import UtcTimestamp, View
from controller.ports.updates import NoRepositoryError, PublishedUpdate, UpdateRepository, UpdatesError
from schemas.updates import UpdateTarget

router = APIRouter(prefix="/updates", tags=["updates"], responses=problems(401, 404, 422, 429, 503))

_Name = Annotated[str, Path(max_length=64)]


class UpdateView(View):
    """A published version; an install command names `path`, `sha256` and `length`."""

    path: str
    sha256: str
    length: int
    target: UpdateTarget


class UpdatePage(View):
    items: tuple[UpdateView, ...]


class MetadataRoleView(View):
    role: str
    version: int
    expires: UtcTimestamp
    keys: int
    threshold: int


class RepositoryView(View):
    """`trouble`: why the online roles cannot be signed; `warnings`: roles that offline keys have to sign soon."""

    roles: tuple[MetadataRoleView, ...]
    trouble: str
    warnings: tuple[str, ...]


def repository_of(rollouts: RolloutServices) -> UpdateRepository:
    """Returns the update repository.

    Raises:
        ApiError: 404, none is configured.
    """
    if rollouts.updates is None:
        raise ApiError(404, "updates_not_set_up", "no repository of updates: set updates.folder in cordon.toml")
    return rollouts.updates


async def published(rollouts: RolloutServices) -> tuple[PublishedUpdate, ...]:
    """Returns the published updates.

    Raises:
        ApiError: 404, there is no repository; 503, it cannot be read.
    """
    repository = repository_of(rollouts)
    try:
        return await run_in_threadpool(repository.published)
    except NoRepositoryError as e:
        raise ApiError(404, "updates_not_set_up", str(e)) from e
    except UpdatesError as e:
        raise ApiError(503, "updates_not_readable", str(e)) from e


@router.get("", dependencies=[scope("read")])
async def list_updates(rollouts: RolloutsDep) -> UpdatePage:
    """Lists every version that devices may install."""
    return UpdatePage(items=tuple(UpdateView.of(one) for one in await published(rollouts)))


@router.get("/status", dependencies=[scope("read")])
async def status(rollouts: RolloutsDep) -> RepositoryView:
    """Returns the expiry of the signed metadata, and problems with its renewal."""
    repository = repository_of(rollouts)
    try:
        roles = await run_in_threadpool(repository.roles)
    except UpdatesError as e:
        raise ApiError(503, "updates_not_readable", str(e)) from e
    refresher = rollouts.refresher
    return RepositoryView(
        roles=roles,
        trouble="" if refresher is None else refresher.trouble,
        warnings=() if refresher is None else refresher.warnings,
    )


@router.get("/{name}/{version}", dependencies=[scope("read")])
async def get_update(name: _Name, version: _Name, rollouts: RolloutsDep) -> UpdateView:
    """Returns a version."""
    for one in await published(rollouts):
        if (one.target.name, one.target.version) == (name, version):
            return UpdateView.of(one)
    raise ApiError(404, "update_unknown", f"{name} {version} is not published")
