"""The kinds of audit lines: one for each thing that is observed, decided or done. Imports no other module of Cordon.

The values are stored, sent by the API and logged: they are part of the interface. A kind is never renamed and never
changes its meaning. The first part is the subject, the second what happened to it. `controller.api.audit_texts` has the
sentence of each kind.
"""

from enum import StrEnum


class AuditKind(StrEnum):
    """The kind of an audit line."""

    REPORT_FIRST_ACCEPTED = "report.first_accepted"
    REPORT_POSTURE_CHANGED = "report.posture_changed"
    REPORT_SEQUENCE_REGRESSED = "report.sequence_regressed"
    REPORT_REJECTED = "report.rejected"
    REPORT_SIGNING_STARTED = "report.signing_started"
    REPORT_SIGNING_WAIVED = "report.signing_waived"
    REPORT_SEQUENCE_GAP_FOUND = "report.sequence_gap_found"
    REPORT_RECEIPT_MISSED = "report.receipt_missed"
    REPORT_CERTIFICATE_MISMATCHED = "report.certificate_mismatched"

    DEVICE_STALE = "device.stale"
    DEVICE_CONTACT_RESUMED = "device.contact_resumed"
    DEVICE_ONLINE = "device.online"
    DEVICE_OFFLINE = "device.offline"
    DEVICE_LABELLED = "device.labelled"
    DEVICE_CLONE_SUSPECTED = "device.clone_suspected"
    DEVICE_RETURNED = "device.returned"
    DEVICE_EVENT_REPORTED = "device.event_reported"

    EVENT_HOLD_EXPIRED = "event_hold.expired"
    EVENT_HOLD_DISMISSED = "event_hold.dismissed"

    COMMAND_ISSUED = "command.issued"
    COMMAND_NOT_ISSUED = "command.not_issued"
    COMMAND_COUNTERSIGNED = "command.countersigned"
    COMMAND_SENT = "command.sent"
    COMMAND_WITHDRAWN = "command.withdrawn"
    COMMAND_SUCCEEDED = "command.succeeded"
    COMMAND_FAILED = "command.failed"
    COMMAND_EXPIRED = "command.expired"
    COMMAND_REJECTED = "command.rejected"
    COMMAND_REPLAY_REFUSED = "command.replay_refused"

    CONTAINMENT_DECIDED = "containment.decided"
    CONTAINMENT_ESCALATED = "containment.escalated"
    CONTAINMENT_STEPPED_DOWN = "containment.stepped_down"
    CONTAINMENT_KEPT = "containment.kept"
    CONTAINMENT_PROVEN = "containment.proven"
    CONTAINMENT_PARTLY_PROVEN = "containment.partly_proven"
    CONTAINMENT_FAILED = "containment.failed"
    CONTAINMENT_REFUSED = "containment.refused"
    CONTAINMENT_DEFERRED = "containment.deferred"
    CONTAINMENT_APPROVED = "containment.approved"
    CONTAINMENT_DISMISSED = "containment.dismissed"
    CONTAINMENT_PENDING_CLEARED = "containment.pending_cleared"
    CONTAINMENT_NO_PENDING = "containment.no_pending"
    CONTAINMENT_NOT_IN_FORCE = "containment.not_in_force"
    CONTAINMENT_RELEASE_DECIDED = "containment.release_decided"
    CONTAINMENT_RELEASE_PROVEN = "containment.release_proven"
    CONTAINMENT_RELEASE_BLOCKED = "containment.release_blocked"

    GUARD_BLAST_RADIUS_REACHED = "guard.blast_radius_reached"

    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_WITHDRAWN = "approval.withdrawn"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_FAILED = "approval.failed"

    SCOPES_ENDED = "scopes.ended"

    WAIVER_GRANTED = "waiver.granted"
    WAIVER_REVOKED = "waiver.revoked"
    WAIVER_EXPIRED = "waiver.expired"

    POLICY_RELOADED = "policy.reloaded"

    KNOWLEDGE_REPLACED = "knowledge.replaced"

    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_START_REFUSED = "rollout.start_refused"
    ROLLOUT_RING_OPENED = "rollout.ring_opened"
    ROLLOUT_RING_COMPLETED = "rollout.ring_completed"
    ROLLOUT_APPROVAL_REQUESTED = "rollout.approval_requested"
    ROLLOUT_APPROVED = "rollout.approved"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_CLOCK_LEAPT = "rollout.clock_leapt"
    ROLLOUT_STOPPED = "rollout.stopped"
    ROLLOUT_ABORTED = "rollout.aborted"
    ROLLOUT_ENDED = "rollout.ended"
    ROLLOUT_COMPLETED = "rollout.completed"

    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_IMPORTED = "certificate.imported"
    CERTIFICATE_EXPIRED = "certificate.expired"
    CERTIFICATE_EXPIRING = "certificate.expiring"
    CERTIFICATE_REVOKED = "certificate.revoked"
    CERTIFICATE_REVOKED_ONLY = "certificate.revoked_only"
    CERTIFICATE_REVOCATION_RESOLVED = "certificate.revocation_resolved"
    CERTIFICATE_REVOCATION_RESTORED = "certificate.revocation_restored"
    CERTIFICATE_REVOCATION_KEPT = "certificate.revocation_kept"

    AUTHORITY_EXPIRING = "authority.expiring"

    CRL_FAILED = "crl.failed"
    CRL_RECOVERED = "crl.recovered"

    ENROLMENT_COMPLETED = "enrolment.completed"
    ENROLMENT_REFUSED = "enrolment.refused"
    ENROLMENT_TOKEN_CREATED = "enrolment.token_created"
    ENROLMENT_TOKEN_WITHDRAWN = "enrolment.token_withdrawn"
    ENROLMENT_TOKEN_REUSED = "enrolment.token_reused"
    ENROLMENT_TOKEN_GUESSING_DETECTED = "enrolment.token_guessing_detected"

    KEY_REGISTERED = "key.registered"
    KEY_REGISTRATION_REFUSED = "key.registration_refused"
    KEY_MISMATCHED = "key.mismatched"

    TOKEN_CREATED = "token.created"
    TOKEN_REVOKED = "token.revoked"

    ACCOUNT_CREATED = "account.created"
    ACCOUNT_ROLE_CHANGED = "account.role_changed"
    ACCOUNT_PASSWORD_CHANGED = "account.password_changed"
    ACCOUNT_SETUP_CODE_CREATED = "account.setup_code_created"
    ACCOUNT_ENABLED = "account.enabled"
    ACCOUNT_DISABLED = "account.disabled"
    ACCOUNT_FACTORS_RESET = "account.factors_reset"
    ACCOUNT_SIGN_IN_REFUSED = "account.sign_in_refused"
    ACCOUNT_GUESSING_DETECTED = "account.guessing_detected"

    SESSION_STARTED = "session.started"
    SESSION_ENDED = "session.ended"

    FACTOR_REGISTERED = "factor.registered"
    FACTOR_REMOVED = "factor.removed"
    FACTOR_GIVEN = "factor.given"
    FACTOR_REFUSED = "factor.refused"
    FACTOR_CODES_MADE = "factor.codes_made"
    FACTOR_CODE_USED = "factor.code_used"

    SSO_SIGNED_IN = "sso.signed_in"
    SSO_TRIED = "sso.tried"
    SSO_REFUSED = "sso.refused"

    API_ACCESS_REFUSED = "api.access_refused"
    API_TOKEN_GUESSING_DETECTED = "api.token_guessing_detected"

    ACCESS_TEMPLATES_APPLIED = "access.templates_applied"
    ACCESS_TEMPLATES_WITHDRAWN = "access.templates_withdrawn"
    ACCESS_GRANTED = "access.granted"
    ACCESS_GRANT_ENDED = "access.grant_ended"

    BROKER_DRIFT_FOUND = "broker.drift_found"
    BROKER_SETUP_APPLIED = "broker.setup_applied"
    BROKER_SETUP_UNDONE = "broker.setup_undone"

    BROKER_UNREAD = "broker.unread"
    BROKER_READ_AGAIN = "broker.read_again"

    LINK_LOST = "link.lost"
    LINK_RESTORED = "link.restored"

    STORE_RECOVERED = "store.recovered"

    CONTROLLER_FENCED = "controller.fenced"

    NOTIFICATION_SINK_ADDED = "notification.sink_added"
    NOTIFICATION_SINK_REMOVED = "notification.sink_removed"
    NOTIFICATION_SINK_FAILED = "notification.sink_failed"
    NOTIFICATION_SINK_RECOVERED = "notification.sink_recovered"
    NOTIFICATION_DROPPED = "notification.dropped"
    NOTIFICATION_ACKNOWLEDGED = "notification.acknowledged"

    AUDIT_PRUNED = "audit.pruned"
    AUDIT_BUDGET_USED_UP = "audit.budget_used_up"
    AUDIT_REPEATS_FOLDED = "audit.repeats_folded"
    AUDIT_UNKNOWN_KIND = "audit.unknown_kind"


class DecisionKind(StrEnum):
    """What became of an operator's request about a device; each is the kind of the audit line that says so."""

    CONTAINED = AuditKind.CONTAINMENT_DECIDED
    KEPT = AuditKind.CONTAINMENT_KEPT
    STEPPED_DOWN = AuditKind.CONTAINMENT_STEPPED_DOWN
    RELEASED = AuditKind.CONTAINMENT_RELEASE_DECIDED
    NOT_IN_FORCE = AuditKind.CONTAINMENT_NOT_IN_FORCE
    APPROVED = AuditKind.CONTAINMENT_APPROVED
    PENDING_CLEARED = AuditKind.CONTAINMENT_PENDING_CLEARED
    DISMISSED = AuditKind.CONTAINMENT_DISMISSED
    NO_PENDING = AuditKind.CONTAINMENT_NO_PENDING
    REVOCATION_KEPT = AuditKind.CERTIFICATE_REVOCATION_KEPT
