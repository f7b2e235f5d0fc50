"""Published updates, and whether the metadata that signs them stays valid."""

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
    """One published version; `path`, `sha256` and `length` are what an order to install it names."""

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
    """`trouble`: why the online roles cannot be signed; `warnings`: what offline keys have to do soon."""

    roles: tuple[MetadataRoleView, ...]
    trouble: str
    warnings: tuple[str, ...]


def repository_of(rollouts: RolloutServices) -> UpdateRepository:
    """The repository of this controller.

    Raises:
        ApiError: 404, none is configured.
    """
    if rollouts.updates is None:
        raise ApiError(404, "updates_not_set_up", "no repository of updates: set updates.folder in cordon.toml")
    return rollouts.updates


async def published(rollouts: RolloutServices) -> tuple[PublishedUpdate, ...]:
    """What is published.

    Raises:
        ApiError: 404 or 503, there is no repository that can be read.
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
    """Every version that devices may install."""
    return UpdatePage(items=tuple(UpdateView.of(one) for one in await published(rollouts)))


@router.get("/status", dependencies=[scope("read")])
async def status(rollouts: RolloutsDep) -> RepositoryView:
    """How long the signed metadata holds, and what stands in the way of renewing it."""
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
    """One version."""
    for one in await published(rollouts):
        if (one.target.name, one.target.version) == (name, version):
            return UpdateView.of(one)
    raise ApiError(404, "update_unknown", f"{name} {version} is not published")
