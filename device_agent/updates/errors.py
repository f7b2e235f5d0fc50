"""Why an update did not come about: one word for machines, a sentence for people, and what that makes of it."""

import re
from typing import Final

from schemas.updates import UpdatePhase, UpdateRefusalCode

# Nothing was wrong with who signed it, and trying again may help: that is no refusal.
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
# Of python-tuf's own words: a version that does not fit its place beside others, rather than one that went back.
_MIXED: Final = re.compile(r"^Expected (snapshot version|[\w-]+ v\d)")


class UpdateError(Exception):
    """The update ends here."""

    def __init__(self, code: UpdateRefusalCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def end_of(code: UpdateRefusalCode) -> UpdatePhase:
    """How an update ends that nothing was changed for."""
    if code is UpdateRefusalCode.DECLINED:
        return UpdatePhase.DECLINED
    return UpdatePhase.FAILED if code in _FAILED else UpdatePhase.REFUSED


def of_metadata(error: Exception) -> UpdateError:
    """What an error of python-tuf says about the repository."""
    from tuf.api import exceptions as tuf  # only with an update: it is as large as the rest of the agent

    text = f"{error}" or type(error).__name__
    code = UpdateRefusalCode.BAD_METADATA
    match error:
        case tuf.ExpiredMetadataError():
            code = UpdateRefusalCode.FREEZE
            text += ": somebody keeps the newer one back, nobody renewed it, or this device's clock is ahead"
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
            code = UpdateRefusalCode.UNREACHABLE
            cause = error.__cause__
            text += f": {cause}" if cause is not None else ""
        case tuf.RepositoryError() if "missing info" in text or "does not contain information" in text:
            code = UpdateRefusalCode.MIX_AND_MATCH
        case _:
            pass
    return UpdateError(code, text)
