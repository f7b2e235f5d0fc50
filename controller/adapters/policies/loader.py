"""Loads policy files into a `PolicySet`, or reports all their problems."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError
from yaml.nodes import ScalarNode

from controller.adapters.policies.checks import check_remedies, check_subject
from controller.adapters.policies.diagnostics import compile_at, complain_of_shape
from controller.adapters.policies.document import DocumentPath, YamlDocument, read_document
from controller.adapters.policies.event_rules import compile_events, event_rule, remedy_of
from controller.adapters.policies.models import MAX_RULES, OnFailModel, PolicyModel, RuleModel, UntilModel
from controller.domain.policy.cel import CelEnvironment, CelExpression
from controller.domain.policy.findings import Severity
from controller.domain.policy.model import (
    ContainmentLevel,
    EmptyPolicyError,
    Policy,
    PolicyRule,
    PolicySet,
    RepeatOffenderTerms,
    RuleResponse,
)
from controller.ports.policies import PolicyError, PolicyProblem, PolicyTexts
from schemas.durations import parse_duration

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 100
MAX_SET_BYTES: Final = 16 * 1024 * 1024  # of all files, where the store has them
_EXPRESSIONS: Final = ("check", "applies_if")
_SUFFIXES: Final = (".yaml", ".yml")
_VERSION_DIGITS: Final = 12  # hex digits; enough to tell sets apart, short enough to read
_DEFAULT_ISOLATION: Final = RuleResponse().isolate_for


class ActivePolicies(Protocol):
    """The policies in force and their language."""

    @property
    def policies(self) -> PolicySet: ...

    @property
    def language(self) -> CelEnvironment: ...


@dataclass(frozen=True, slots=True)
class _File:
    document: YamlDocument
    policy: Policy | None
    digest: str


def load_policies(paths: Sequence[Path], language: CelEnvironment) -> PolicySet:
    """Loads all policies of `paths`: files, or folders with `*.yaml` and `*.yml`, in order of name.

    Raises:
        PolicyError: no policies, or a problem in any file; it has all problems.
    """
    return _as_set(*read_policies(paths, language))


def compile_policies(texts: PolicyTexts, language: CelEnvironment) -> PolicySet:
    """The set of these texts, which has the version that it had when it was loaded from files.

    Raises:
        PolicyError: as `load_policies`.
    """
    return _as_set(*_compiled(texts, language, []))


def read_texts(paths: Sequence[Path]) -> PolicyTexts:
    """The texts of all files of `paths`, as `load_policies` finds them.

    Raises:
        PolicyError: one of them cannot be read, or all together are larger than `MAX_SET_BYTES`.
    """
    problems: list[PolicyProblem] = []
    texts = tuple((str(path), text) for path, text in _read(_files(paths, problems), problems))
    if sum(len(text.encode()) for _, text in texts) > MAX_SET_BYTES:
        problems.append(PolicyProblem("policies", 0, 0, f"all files together are larger than {MAX_SET_BYTES} bytes"))
    if problems:
        raise PolicyError(problems)
    return texts


def _as_set(policies: tuple[Policy, ...], version: str) -> PolicySet:
    try:
        return PolicySet(policies, version)
    except EmptyPolicyError as e:
        raise PolicyError([PolicyProblem(policies[0].source, 0, 0, str(e))]) from e


def read_policies(paths: Sequence[Path], language: CelEnvironment) -> tuple[tuple[Policy, ...], str]:
    """Returns the policies and the version of their set; rules about events alone are allowed.

    Raises:
        PolicyError: as `load_policies`.
    """
    problems: list[PolicyProblem] = []
    texts = [(str(path), text) for path, text in _read(_files(paths, problems), problems)]
    return _compiled(texts, language, problems)


def _compiled(
    texts: Sequence[tuple[str, str]], language: CelEnvironment, problems: list[PolicyProblem]
) -> tuple[tuple[Policy, ...], str]:
    files = [_parse(text, source, language) for source, text in texts]
    problems.extend(problem for file in files for problem in file.document.problems)
    problems.extend(_clashes(files))
    policies = tuple(file.policy for file in files if file.policy is not None)
    if not files and not problems:
        problems.append(PolicyProblem("policies", 0, 0, "no file is given: judging by nothing would pass every device"))
    if problems:
        raise PolicyError(problems)
    digests = sorted(f"{file.policy.name} {file.digest}" for file in files if file.policy is not None)
    return policies, hashlib.sha256("\n".join(digests).encode()).hexdigest()[:_VERSION_DIGITS]


def candidate_policies(present: ActivePolicies, texts: Sequence[tuple[str, str]], *, alone: bool) -> PolicySet:
    """Returns the set with these texts (source and text) in place of policies of the same name.

    `alone`: in place of all policies in force.

    Raises:
        PolicyError: a problem in any of them, or a duplicate policy.
    """
    files = [_parse(text, source, present.language) for source, text in texts]
    problems = [problem for file in files for problem in file.document.problems]
    problems.extend(_clashes(files))
    if problems:
        raise PolicyError(problems)
    fresh = {file.policy.name: file.policy for file in files if file.policy is not None}
    kept = () if alone else tuple(one for one in present.policies.policies if one.name not in fresh)
    named = "\n".join([present.policies.policy_version, *(file.digest for file in files)])
    version = hashlib.sha256(named.encode()).hexdigest()[:_VERSION_DIGITS]
    try:
        return PolicySet((*kept, *fresh.values()), version).with_knowledge(present.policies.knowledge)
    except EmptyPolicyError as e:
        raise PolicyError([PolicyProblem(texts[0][0], 0, 0, str(e))]) from e


def parse_policy(text: str, source: str, language: CelEnvironment) -> Policy:
    """One policy from its text; `source` is what problems call it.

    Raises:
        PolicyError: anything wrong with it.
    """
    file = _parse(text, source, language)
    if file.policy is None:
        raise PolicyError(file.document.problems)
    return file.policy


def _files(paths: Iterable[Path], problems: list[PolicyProblem]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            # Also what is no readable file, such as a link whose target is gone: without its rules devices would pass.
            # Names that begin with a dot are editors' locks and copies, also links without a target.
            inside = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES and not one.name.startswith("."))
        except OSError as e:
            problems.append(PolicyProblem(str(path), 0, 0, f"cannot be read: {e.strerror}"))
            continue
        if not inside:
            message = "no *.yaml in this folder: judging by nothing would pass every device"
            problems.append(PolicyProblem(str(path), 0, 0, message))
        found.extend(inside)
    found = list(dict.fromkeys(found))
    if len(found) > MAX_FILES:
        problems.append(
            PolicyProblem(str(found[MAX_FILES]), 0, 0, f"too many policy files: {len(found)} > {MAX_FILES}")
        )
    return found[:MAX_FILES]


def _read(paths: Iterable[Path], problems: list[PolicyProblem]) -> Iterable[tuple[Path, str]]:
    for path in paths:
        try:
            raw = _read_file(path)
            if len(raw) > MAX_FILE_BYTES:
                problems.append(PolicyProblem(str(path), 0, 0, f"larger than {MAX_FILE_BYTES} bytes"))
                continue
            yield path, raw.decode("utf-8-sig")
        except OSError as e:
            problems.append(PolicyProblem(str(path), 0, 0, f"cannot be read: {e.strerror}"))
        except UnicodeDecodeError as e:
            problems.append(PolicyProblem(str(path), raw.count(b"\n", 0, e.start) + 1, 1, "not UTF-8 text"))


def _read_file(path: Path) -> bytes:
    """Follows links, as mounted configuration has them. A pipe is an error, and is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        return file.read(MAX_FILE_BYTES + 1)


def _clashes(files: Iterable[_File]) -> Iterable[PolicyProblem]:
    seen: dict[str, str] = {}
    count = 0
    for file in files:
        if file.policy is None:
            continue
        document = YamlDocument(file.document.source, file.document.text, values=file.document.values)
        first = seen.setdefault(file.policy.name, file.policy.source)
        if first != file.policy.source:
            document.complain_of(("policy",), f"policy {file.policy.name!r} is in {first} already")
        elif count <= MAX_RULES < count + len(file.policy.rules) + len(file.policy.events):
            document.complain_of(("rules",), f"more than {MAX_RULES} rules in all files together")
        count += len(file.policy.rules) + len(file.policy.events)
        yield from document.problems


def _parse(text: str, source: str, language: CelEnvironment) -> _File:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text.encode()) > MAX_FILE_BYTES:
        document = YamlDocument(
            source, "", problems=[PolicyProblem(source, 0, 0, f"larger than {MAX_FILE_BYTES} bytes")]
        )
        return _File(document, None, "")
    document = read_document(text, source)
    policy = None if document.problems and document.data is None else _validate(document, language)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    return _File(document, policy, hashlib.sha256(text.encode()).hexdigest())


def _validate(document: YamlDocument, language: CelEnvironment) -> Policy | None:
    model: PolicyModel | None = None
    try:
        model = PolicyModel.model_validate(document.data)
    except ValidationError as e:
        # A value that could not be read is reported already; the model's error at that position would repeat it.
        reported = {(problem.line, problem.column) for problem in document.problems}
        mark = len(document.problems)
        for error in e.errors(include_url=False):
            complain_of_shape(document, error)
        fresh = [one for one in document.problems[mark:] if (one.line, one.column) not in reported]
        document.problems[mark:] = dict.fromkeys(fresh)
    # Despite other problems, so that an author sees all of them at once.
    compiled = _compile(document, language)
    _repeated_ids(document)
    check_remedies(document)
    if model is not None:
        check_subject(document, model, language)
    if model is None or document.problems:
        return None
    rules = tuple(_rule(model, number, rule, compiled) for number, rule in enumerate(model.rules))
    events = tuple(event_rule(model, number, one, compiled) for number, one in enumerate(model.events))
    scope = compiled.get(("applies_to",))
    return Policy(model.policy, model.version, model.title, rules, scope, document.source, events)


def _compile(document: YamlDocument, language: CelEnvironment) -> dict[DocumentPath, CelExpression]:
    compiled: dict[DocumentPath, CelExpression] = {}
    for place in list(document.values):
        if place == ("applies_to",) or (len(place) == 3 and place[0] == "rules" and place[2] in _EXPRESSIONS):
            expression = compile_at(document, place, language)
            if expression is not None:
                compiled[place] = expression
    return {**compiled, **compile_events(document, compiled.get(("applies_to",)))}


def _repeated_ids(document: YamlDocument) -> None:
    seen: dict[str, int] = {}
    for place, node in document.values.items():
        if len(place) == 3 and place[0] in ("rules", "events") and place[2] == "id" and isinstance(node, ScalarNode):
            line = node.start_mark.line + 1
            if seen.setdefault(node.value, line) != line:
                message = f"rule {node.value!r} is a duplicate: first in line {seen[node.value]}"
                document.complain(node.start_mark.index, message)


def _rule(
    policy: PolicyModel, number: int, rule: RuleModel, compiled: Mapping[DocumentPath, CelExpression]
) -> PolicyRule:
    return PolicyRule(
        key=f"{policy.policy}/{rule.id}",
        title=rule.title,
        check=compiled["rules", number, "check"],
        severity=Severity(rule.severity),
        applies_if=compiled.get(("rules", number, "applies_if")),
        response=_response(rule.on_fail),
        why=rule.why,
        fix=rule.fix,
        references=tuple(rule.references),
        shadow=(rule.mode or policy.mode) == "shadow",
    )


def _response(on_fail: OnFailModel) -> RuleResponse:
    until, repeat = on_fail.until or UntilModel(), on_fail.repeat
    return RuleResponse(
        contain=ContainmentLevel(on_fail.contain),
        remedy=remedy_of(on_fail.remediate),
        consecutive=on_fail.after.consecutive,
        grace=parse_duration(on_fail.after.grace),
        isolate_for=_DEFAULT_ISOLATION if on_fail.isolate_for is None else parse_duration(on_fail.isolate_for),
        passing=until.passing,
        cool_down=parse_duration(until.cool_down),
        repeat=None
        if repeat is None
        else RepeatOffenderTerms(parse_duration(repeat.within), float(repeat.factor), parse_duration(repeat.most)),
        rollout=on_fail.rollout,
    )
