"""Knowledge on one day: which entry decides, until when it counts, and when the version changes."""

from datetime import timedelta

import pytest

from controller.domain.policy.facts import TYPES
from controller.domain.policy.knowledge import CATALOGUE, MAX_ANSWERS, NO_KNOWLEDGE, RESTS_ON, KnowledgeKind
from controller.domain.policy.model import DevicePredicate
from tests.support.knowledge import TODAY, support
from tests.support.playbook import language, policies, rule

OS, PROGRAM = KnowledgeKind.OS, KnowledgeKind.PROGRAM


@pytest.mark.parametrize(
    ("version", "fixes"),
    [
        ("12", True),
        ("12.11", True),
        ("120", None),
        ("1", None),
        ("", None),
        ("12.4", False),  # the entry that matches the most decides
        ("12.40", True),
    ],
)
def test_the_longest_version_that_matches_decides(version: str, fixes: bool | None) -> None:
    assert support({"debian 12": 5, "debian 12.4": -1}).support(OS, "debian", version).gets_fixes is fixes


def test_letters_belong_to_a_branch_and_digits_do_not() -> None:
    known = support({"openssl 1.1.1": 5, "openssl 3.1": 5})
    for version, fixes in (("1.1.1k", True), ("1.1.1", True), ("1.1.10", None), ("3.1.4", True), ("3.10.0", None)):
        assert known.support(PROGRAM, "openssl", version).gets_fixes is fixes
    assert known.support(OS, "openssl", "3.1").gets_fixes is None


def test_an_entry_counts_from_the_day_it_was_verified_as_long_as_it_says() -> None:
    for days, fixes in ((-1, None), (0, True), (10, True), (11, False), (30, False), (31, None)):
        known = support({"debian 12": 10}, day=TODAY + timedelta(days), good_for=30)
        assert known.support(OS, "debian", "12").gets_fixes is fixes, days


def test_the_version_changes_when_an_answer_does() -> None:
    days = [support({"debian 12": 10}, day=TODAY + timedelta(n), good_for=30).version for n in range(40)]
    assert [n for n in range(1, 40) if days[n] != days[n - 1]] == [11, 31]
    assert support({"debian 12": 11}).version != support({"debian 12": 10}).version


def test_a_set_of_policies_has_another_version_only_if_a_rule_rests_on_the_knowledge() -> None:
    known, later = support({"debian 12": 10}), support({"debian 12": 10}, day=TODAY + timedelta(11))
    other, using = policies(rule("a", check="reboot_required")), policies(rule("a", check="os_supported"))
    assert other.with_knowledge(known).version == "v1"
    assert using.version == using.with_knowledge(NO_KNOWLEDGE).version == "v1"
    first = using.with_knowledge(known)
    assert first.version != using.with_knowledge(later).version
    assert first.with_knowledge(known) is first
    assert (first.policy_version, using.with_knowledge(later).knowledge) == ("v1", later)
    waived = other.with_predicates((DevicePredicate("w", language().compile("os_supported")),))
    assert waived.version != waived.with_knowledge(known).version != waived.with_knowledge(later).version
    assert first.with_predicates(waived.predicates).with_knowledge(later).policy_version == "v1"


def test_every_fact_that_rests_on_knowledge_is_declared() -> None:
    assert RESTS_ON.keys() == CATALOGUE.keys() <= TYPES.keys()
    entry = support({"openssl 3.0": 1}).knowledge.entries[0]
    used = policies(rule("a", check="os_supported"), rule("b", check='openssl_maintainer == "nobody"'))
    assert used.rules_resting_on(entry) == ("p/b",)


def test_kept_answers_are_those_of_the_facts_that_were_asked_about_and_bounded() -> None:
    knowledge = support({"debian 12": 10, "debian 11": -10})
    asked = [{"os_id": "debian", "os_version": version} for version in ("12", "11", "12", "9", "11")]
    assert [knowledge.answer("os_supported", facts).value for facts in asked] == [True, False, True, None, False]
    for number in range(3 * MAX_ANSWERS):
        knowledge.answer("os_supported", {"os_id": "debian", "os_version": f"12.{number}"})
    assert len(knowledge._answers) <= MAX_ANSWERS
    assert knowledge.answer("os_supported", {"os_id": "debian", "os_version": "11"}).value is False
