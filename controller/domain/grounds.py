"""What a containment by policy rests on: whose words, and since when; what is merely claimed contains nobody."""

from dataclasses import dataclass

from controller.domain.draft import Draft
from controller.domain.evidence import Evidence
from controller.domain.respond import Wanted, wanted


@dataclass(frozen=True, slots=True)
class Grounds:
    """The words behind a decision.

    `evidence_at`: when the message arrived that led to it, `said_at`: when the earliest one did that it needs, both
    Unix seconds. `evidence`: what the messages prove of who sent them.
    """

    evidence_at: float
    said_at: float
    evidence: Evidence

    def may_contain(self, now: float, refused_until: float) -> bool:
        """Whether it is worth asking the broker; a signature is worth the same whatever was refused before."""
        return self.evidence is not Evidence.CLAIMED and (self.evidence.may_contain or now >= refused_until)

    def with_events(self, draft: Draft, want: Wanted, without: frozenset[str]) -> "Grounds":
        """The same, or less where what is wanted needs events that were told before.

        A report proves who sent it, not who told of an event an hour ago; and of a number of events the first may have
        been somebody else's.
        """
        rules = draft.device.rules
        told = [key for key in want.causes if rules[key].until]
        if not told:
            return self
        alone = wanted(rules, draft.policies, draft.now, without.union(told))
        if alone.level.rank >= want.level.rank:
            return self
        said_at = min(self.said_at, *(rules[key].since for key in told))
        evidence = Evidence.UNASKED if self.evidence.may_contain else self.evidence
        return Grounds(self.evidence_at, said_at, evidence)
