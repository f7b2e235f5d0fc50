"""Receipts as bytes, and stored reports parsed again."""

from pydantic import ValidationError

from controller.domain.effects import SendReceipt
from controller.domain.evidence import Evidence
from schemas.events import ReceiptVerdict, ReportReceipt, accepted_json
from schemas.posture import FullReport


def receipt_json(receipt: SendReceipt) -> bytes:
    """The receipt's payload; the usual one is built without a model."""
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


def parse_full_report(merged: bytes) -> FullReport | None:
    """The report; `None` if its stored part is of a version that is not supported any more."""
    try:
        return FullReport.model_validate_json(merged)
    except ValidationError:
        return None


def evidence_of(*, is_signed: bool) -> Evidence:
    """The evidence in a message itself."""
    return Evidence.SIGNED if is_signed else Evidence.UNASKED
