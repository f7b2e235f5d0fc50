"""A contained device is freed by a report made for the occasion: it answers a nonce sent after it was contained.

So a good report that was recorded earlier, or held back, frees nobody. The nonce is kept with the case; each answered
report gets a new one. A device whose agent has answered once is never believed without again.
"""

import hashlib
from dataclasses import replace
from typing import Final

from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import SendReceipt
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition
from schemas.events import NONCE_DIGITS, ReceiptVerdict

_LABEL: Final = b"cordon challenge\0"


def nonce_of(event_id: str) -> str:
    """The nonce of what one event leads to: as random as the id, and not to be read from an id that a device sees."""
    return hashlib.sha256(_LABEL + event_id.encode()).hexdigest()[:NONCE_DIGITS]


def must_answer(device: Device, *, required: bool = False) -> bool:
    """Whether only an answered report can free it: its agent is known to answer, or it is `required` of all."""
    return required or device.answers


def may_release(
    device: Device,
    now: float,
    answers: str | None,
    *,
    required: bool = False,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether what the device says counts towards a release, as far as freshness goes.

    `answers`: the nonce in the message; `None` in one that can hold none. What does not look like a pass counts too:
    it frees nobody, and ends a run of passes. `without`: rules that hold nobody, although they fail.
    """
    case = device.case
    if case is None or not must_answer(device, required=required) or not looks_passing(device, case, now, without):
        return True
    return bool(case.nonce) and answers == case.nonce


def looks_passing(device: Device, case: ContainmentCase, now: float, without: frozenset[str] = frozenset()) -> bool:
    """Whether a fresh report saying the same might free the device; only then is one worth asking for."""
    if case.level is not ContainmentLevel.RESTRICTED or now < case.hold_until:
        return False
    return not any(cause in device.rules and cause not in without for cause in case.causes)


def pose(draft: Transition, seq: int, answers: str | None, *, ask: bool) -> None:
    """Put the case's nonce into the receipts of this step; with `ask` the device is told to report at once.

    A nonce that was answered is used up. An agent that knows of none is sent none: it would not read the receipt.
    """
    device = draft.device
    case = device.case
    if case is None or not device.answers:
        return
    if not case.nonce or answers == case.nonce:
        case = draft.update_case(case, nonce=nonce_of(draft.event_id))
    if ask and not any(one.verdict is ReceiptVerdict.RESEND_FULL for one in draft.receipts):
        draft.receipts.append(SendReceipt(device.device_id, seq, ReceiptVerdict.RESEND_FULL))
    draft.receipts[:] = [
        one if one.verdict is ReceiptVerdict.REJECTED else replace(one, nonce=case.nonce) for one in draft.receipts
    ]
