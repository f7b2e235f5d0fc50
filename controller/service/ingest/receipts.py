"""What a device hears of its report, as bytes; and a stored report read again."""

from pydantic import ValidationError

from controller.domain.effects import SendReceipt
from controller.domain.evidence import Evidence
from schemas.events import ReceiptVerdict, ReportReceipt, accepted_json
from schemas.posture import FullReport


def receipt_json(receipt: SendReceipt) -> bytes:
    """The receipt as it is sent; the usual one without a model."""
    plain = receipt.verdict is ReceiptVerdict.ACCEPTED and not receipt.nonce
    if plain and receipt.seq is not None and receipt.digest is not None:
        return accepted_json(receipt.seq, receipt.digest)
    return ReportReceipt(
        seq=receipt.seq,
        verdict=receipt.verdict,
        digest=receipt.digest,
        reason=receipt.reason,
        detail=receipt.detail,
        about=receipt.about,
        nonce=receipt.nonce or None,
    ).to_json()


def read_whole(merged: bytes) -> FullReport | None:
    """The report, unless the stored part of it is one that this version does not read any more."""
    try:
        return FullReport.model_validate_json(merged)
    except ValidationError:
        return None


def evidence_of(*, is_sealed: bool) -> Evidence:
    """What a message itself proves of its sender."""
    return Evidence.SIGNED if is_sealed else Evidence.UNASKED
