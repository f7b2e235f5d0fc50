"""Everything about devices' certificates behind one name; absent where no authority is configured."""

from dataclasses import dataclass

from controller.service.identity.certificates import Certificates
from controller.service.identity.enrolment import Enrolment
from controller.service.identity.renewal import Renewals
from controller.service.identity.revocation import Revocation


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts, wired together by the composition root."""

    certificates: Certificates
    enrolment: Enrolment
    revocation: Revocation
    renewals: Renewals
