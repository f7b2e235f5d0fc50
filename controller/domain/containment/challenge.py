"""Nonce challenge: a contained device is released only by a report that answers a nonce sent after the containment.

A recorded or delayed good report therefore releases no device. The nonce is kept with the case; each answered report
gets a new one. Once an agent has answered a nonce, no report without one counts any more.
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


def nonce_for(event_id: str) -> str:
    """Returns the nonce of an event: as random as the event's id, and not derivable from ids that a device sees."""
    return hashlib.sha256(_LABEL + event_id.encode()).hexdigest()[:NONCE_DIGITS]


def requires_challenge(device: Device, *, required: bool = False) -> bool:
    """Whether only an answered nonce releases the device: its agent has answered one, or all agents have to."""
    return required or device.answers


def is_release_evidence(
    device: Device,
    now: float,
    answers: str | None,
    *,
    required: bool = False,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether a message is fresh enough to count towards a release.

    `answers`: the nonce in the message, `None` for a message that has none. `without`: rules that keep no device
    contained. A message that cannot release the device counts too, because it ends a run of passing reports.
    """
    case = device.case
    if case is None or not requires_challenge(device, required=required):
        return True
    if not is_release_candidate(device, case, now, without):
        return True
    return bool(case.nonce) and answers == case.nonce


def is_release_candidate(
    device: Device, case: ContainmentCase, now: float, without: frozenset[str] = frozenset()
) -> bool:
    """Whether a fresh report with the same findings might release the device, so that one is worth requesting."""
    if case.level is not ContainmentLevel.RESTRICTED or now < case.hold_until:
        return False
    return not any(cause in device.rules and cause not in without for cause in case.causes)


def issue_challenge(transition: Transition, seq: int, answers: str | None, *, ask: bool) -> None:
    """Adds the nonce of the case to the receipts of this step; with `ask` the device has to report at once.

    An answered nonce is replaced. Agents without nonces get none, because they would reject the receipt.
    """
    device = transition.device
    case = device.case
    if case is None or not device.answers:
        return
    if not case.nonce or answers == case.nonce:
        case = transition.update_case(case, nonce=nonce_for(transition.event_id))
    receipts = transition.receipts
    if ask and not any(receipt.verdict is ReceiptVerdict.RESEND_FULL for receipt in receipts):
        receipts.append(SendReceipt(device.device_id, seq, ReceiptVerdict.RESEND_FULL))
    receipts[:] = [
        receipt if receipt.verdict is ReceiptVerdict.REJECTED else replace(receipt, nonce=case.nonce)
        for receipt in receipts
    ]
