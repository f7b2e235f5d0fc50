"""Views of requests that a second person decides."""

from typing import Annotated, Final

from pydantic import Field

from controller.api.fields import OptionalTimestamp, UtcTimestamp, View
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest, ApprovalState
from controller.domain.policy.model import ContainmentLevel
from controller.domain.scopes import Scope
from schemas.durations import duration_text

MAX_LISTED: Final = 100  # devices of each request in a list


class ApprovalRequestView(View):
    """A request that a second person decides; `asks` says what for.

    `duration`: of the containment or of the scopes. `devices`: whom it is about, in lists the first of `device_count`.
    `username`: the user to be contained; `devices` are then its sessions. `subject`: the rollout or command.
    `serials`: the certificates to be revoked. `needs`: the scopes of whoever decides it. `digest`: of all that is
    carried out. `outcome`: why it ended. `lent_until`: when the approved scopes end.
    """

    request_id: str
    asks: Annotated[ApprovalKind, Field(validation_alias="kind")]
    state: ApprovalState
    by: str
    reason: str
    level: ContainmentLevel
    duration: str | None
    devices: tuple[str, ...]
    device_count: int
    username: str
    subject: str
    scopes: tuple[Scope, ...]
    serials: tuple[str, ...]
    even_protected: bool
    needs: Annotated[tuple[Scope, ...], Field(validation_alias="needed")]
    digest: str
    asked_at: UtcTimestamp
    expires_at: UtcTimestamp
    decided_by: str
    decided_at: OptionalTimestamp
    outcome: str
    unfinished: bool
    lent_until: OptionalTimestamp


def request_view(request: ApprovalRequest, now: float, *, most: int | None = None) -> ApprovalRequestView:
    """Returns the request in its state at `now` (Unix seconds), with at most `most` devices."""
    grant = request.grant
    return ApprovalRequestView.of(
        request,
        state=request.state_at(now),
        duration=None if request.hold is None else duration_text(request.hold),
        devices=request.devices[:most],
        device_count=len(request.devices),
        lent_until=None if grant is None else grant.ends_at,
    )
