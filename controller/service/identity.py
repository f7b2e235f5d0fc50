"""Everything about devices' certificates behind one name; absent where no authority is configured."""

from dataclasses import dataclass

from controller.service.certificates import Certificates
from controller.service.enrolling import Enrolment
from controller.service.renewing import Renewals
from controller.service.revoking import Revocation


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts, wired together by the composition root."""

    certificates: Certificates
    enrolment: Enrolment
    revocation: Revocation
    renewals: Renewals
