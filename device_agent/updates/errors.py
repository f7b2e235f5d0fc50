"""Why an update failed: a code for programs, a text for people, and the resulting phase."""

import re
import ssl
from typing import Final

from schemas.updates import UpdatePhase, UpdateRefusalCode

# The signatures were valid, and another attempt may succeed: the update failed, it was not refused.
_FAILED: Final = frozenset(
    {
        UpdateRefusalCode.UNREACHABLE,
        UpdateRefusalCode.DEADLINE,
        UpdateRefusalCode.INSTALL,
        UpdateRefusalCode.HEALTH,
        UpdateRefusalCode.BROKER,
        UpdateRefusalCode.INTERRUPTED,
        UpdateRefusalCode.OTHER,
    }
)
# Texts of python-tuf about a version that does not match the other roles, as opposed to an older one.
_MIXED: Final = re.compile(r"^Expected (snapshot version|[\w-]+ v\d)")

_CERT_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL
_MAX_CAUSES: Final = 8


class UpdateError(Exception):
    """The update ends with this failure."""

    def __init__(self, code: UpdateRefusalCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def outcome_for(code: UpdateRefusalCode) -> UpdatePhase:
    """Returns the outcome of an update that changed nothing."""
    if code is UpdateRefusalCode.DECLINED:
        return UpdatePhase.DECLINED
    return UpdatePhase.FAILED if code in _FAILED else UpdatePhase.REFUSED


def _is_not_yet_valid(error: BaseException | None) -> bool:
    """Whether a server's certificate begins later than now: the device's clock is behind."""
    for _ in range(_MAX_CAUSES):
        if error is None:
            return False
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_code == _CERT_NOT_YET_VALID
        reason = getattr(error, "reason", None)  # urllib3 has the cause there
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    return False


def from_tuf_error(error: Exception) -> UpdateError:
    """Returns an error of python-tuf as the failure of an update."""
    from tuf.api import exceptions as tuf  # only with an update: as large as the rest of the agent

    text = f"{error}" or type(error).__name__
    code = UpdateRefusalCode.BAD_METADATA
    match error:
        case tuf.ExpiredMetadataError():
            code = UpdateRefusalCode.FREEZE
            text += ": newer metadata is withheld, was not renewed, or this device's clock is ahead"
        case tuf.BadVersionNumberError():
            code = UpdateRefusalCode.MIX_AND_MATCH if _MIXED.match(text) else UpdateRefusalCode.ROLLBACK
        case tuf.LengthOrHashMismatchError():
            code = UpdateRefusalCode.MIX_AND_MATCH
        case tuf.UnsignedMetadataError():
            code = UpdateRefusalCode.BAD_SIGNATURE
        case tuf.DownloadLengthMismatchError():
            code = UpdateRefusalCode.ENDLESS_DATA
        case tuf.SlowRetrievalError():
            code, text = UpdateRefusalCode.SLOW_RETRIEVAL, text or "the server is too slow"
        case tuf.DownloadHTTPError() if error.status_code in {403, 404, 410}:
            code = UpdateRefusalCode.MISSING_METADATA
        case tuf.DownloadError():
            cause = error.__cause__
            text += f": {cause}" if cause is not None else ""
            code = UpdateRefusalCode.CLOCK if _is_not_yet_valid(error) else UpdateRefusalCode.UNREACHABLE
        case tuf.RepositoryError() if "missing info" in text or "does not contain information" in text:
            code = UpdateRefusalCode.MIX_AND_MATCH
        case _:
            pass
    return UpdateError(code, text)
