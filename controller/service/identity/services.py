"""The services of devices' certificates; absent where no authority is configured."""

from dataclasses import dataclass

from controller.service.identity.certificates import CertificateService
from controller.service.identity.enrolment import EnrolmentService
from controller.service.identity.external_crls import ExternalCrlRefresher
from controller.service.identity.following import RevocationFollower
from controller.service.identity.renewal import RenewalService
from controller.service.identity.revocation import RevocationService


@dataclass(frozen=True, slots=True)
class IdentityServices:
    """`external`: of watched lists; `follower`: where several controllers work with the store."""

    certificates: CertificateService
    enrolment: EnrolmentService
    revocation: RevocationService
    renewals: RenewalService
    external: ExternalCrlRefresher | None = None
    follower: RevocationFollower | None = None
