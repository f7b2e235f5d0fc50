"""Stream parser for XCCDF results and ARF files: builds no tree, rejects a DOCTYPE, keeps what precedes an error."""

import re
import xml.parsers.expat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

RESULTS: Final = (
    "pass",
    "fail",
    "error",
    "unknown",
    "notapplicable",
    "notchecked",
    "notselected",
    "informational",
    "fixed",
)
SEVERITIES: Final = ("unknown", "info", "low", "medium", "high")
MAX_RULES: Final = 20_000  # of one test result
MAX_SCANS: Final = 64  # test results of one file
MAX_TEXT: Final = 512  # characters kept of an id, title or value
MAX_DEPTH: Final = 256
MAX_TOKEN_BYTES: Final = 1024 * 1024  # of one tag; expat reads an unfinished tag again with every chunk
_NAMESPACE: Final = re.compile(r"^http://checklists\.nist\.gov/xccdf/1\.[12]$")
_RULE_ATTRIBUTES: Final = frozenset({"idref", "role", "time", "severity", "version", "weight"})
_ELEMENTS: Final = frozenset(  # of a TestResult
    {
        *("benchmark", "tailoring-file", "title", "remark", "organization", "identity", "profile", "set-value"),
        *("set-complex-value", "target", "target-address", "target-facts", "target-id-ref", "platform"),
        *("rule-result", "score", "metadata", "signature", ""),
    }
)
_REPORTED: Final = frozenset({"fail", "error", "unknown"})
_MAX_TITLES: Final = 20_000


class XccdfRefusedError(Exception):
    """The file is rejected for the reason in the text."""


@dataclass(frozen=True, slots=True)
class XccdfRuleResult:
    """The result of a rule that did not pass."""

    rule: str
    result: str
    severity: str


@dataclass(slots=True)
class XccdfTestResult:
    """One TestResult; `is_complete` when its end tag was read and it has an end time."""

    benchmark: str
    profile: str = ""
    ended: datetime | None = None
    score: int | None = None
    is_complete: bool = False
    results: dict[str, int] = field(default_factory=dict)
    rules: list[XccdfRuleResult] = field(default_factory=list)
    omitted_count: int = 0
    not_understood: str = ""  # the first word, attribute or element that XCCDF does not have


@dataclass(slots=True)
class XccdfDocument:
    """The content of a file: test results, titles by rule, and the error that ended parsing ("" for none)."""

    scans: list[XccdfTestResult] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    error: str = ""


class _Reader:
    """The parser's handlers and their state; elements outside XCCDF's namespace are ignored."""

    def __init__(self) -> None:
        self.document = XccdfDocument()
        self._path: list[str] = []
        self._benchmark = ""
        self._rule = ""  # the benchmark's rule whose title is expected
        self._profile = ""
        self._severities: dict[tuple[str, str], str] = {}  # by profile, empty for the benchmark, and rule
        self._scan: XccdfTestResult | None = None
        self._result: tuple[str, str] | None = None  # rule and severity
        self._has_result = False
        self._text: list[str] | None = None
        self._length = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= MAX_DEPTH:
            raise XccdfRefusedError(f"nested deeper than {MAX_DEPTH} elements")
        namespace, _, tag = name.rpartition(" ")
        tag = tag if _NAMESPACE.match(namespace) else ""
        self._path.append(tag)
        if self._scan is not None:
            self._start_in_scan(self._scan, tag, attributes)
        elif tag == "TestResult":
            if len(self.document.scans) >= MAX_SCANS:
                raise XccdfRefusedError(f"more than {MAX_SCANS} results in one file")
            self._scan = XccdfTestResult(self._benchmark, ended=_time(attributes.get("end-time", "")))
            self.document.scans.append(self._scan)
        elif tag == "Benchmark":
            self._benchmark = attributes.get("id", "")[:MAX_TEXT]
        elif tag == "Rule":
            self._rule = attributes.get("id", "")[:MAX_TEXT]
            self._set_severity("", self._rule, attributes.get("severity", "unknown"))
        elif tag == "Profile":
            self._profile = attributes.get("id", "")[:MAX_TEXT]
        elif tag == "refine-rule" and "severity" in attributes:
            self._set_severity(self._profile, attributes.get("idref", "")[:MAX_TEXT], attributes["severity"])
        elif tag == "title" and self._path[-2:-1] == ["Rule"]:
            self._expect_text()

    def _start_in_scan(self, scan: XccdfTestResult, tag: str, attributes: dict[str, str]) -> None:
        parent = self._path[-2]
        if parent == "TestResult" and tag not in _ELEMENTS:
            self._note(scan, f"not an element of a test result: {tag}")
        if parent == "TestResult" and tag == "benchmark":
            scan.benchmark = (
                attributes.get("id", "")[:MAX_TEXT] or scan.benchmark or attributes.get("href", "")[:MAX_TEXT]
            )
        elif parent == "TestResult" and tag == "profile":
            scan.profile = attributes.get("idref", "")[:MAX_TEXT]
        elif parent == "TestResult" and tag == "rule-result":
            self._start_rule_result(scan, attributes)
        elif (parent == "rule-result" and tag == "result") or (parent == "TestResult" and tag == "score"):
            self._expect_text()
            if tag == "score" and attributes.get("maximum", "100").split(".")[0] != "100":
                self._text = None  # a score of another scale is not reported

    def _start_rule_result(self, scan: XccdfTestResult, attributes: dict[str, str]) -> None:
        rule, severity = attributes.get("idref", "")[:MAX_TEXT], attributes.get("severity", "")
        if odd := sorted(name for name in attributes if " " not in name and name not in _RULE_ATTRIBUTES):
            self._note(scan, f"not an attribute of a rule's result: {odd[0]}")
        if not rule:
            self._note(scan, "a result names no rule")
        if severity and severity not in SEVERITIES:
            self._note(scan, f"not a severity: {severity}")
            severity = "unknown"
        self._result, self._has_result = (rule, severity), False

    def _set_severity(self, profile: str, rule: str, severity: str) -> None:
        if len(self._severities) < MAX_RULES:
            self._severities[profile, rule] = severity

    def resolve_severities(self) -> None:
        """Gives each result without a severity that of its rule, as the profile refines it."""
        for scan in self.document.scans:
            for at, result in enumerate(scan.rules):
                if not result.severity:
                    scan.rules[at] = replace(result, severity=self._severity_of(scan, result.rule))

    def _severity_of(self, scan: XccdfTestResult, rule: str) -> str:
        severity = self._severities.get((scan.profile, rule)) or self._severities.get(("", rule), "")
        if severity not in SEVERITIES:
            self._note(scan, f"not a severity: {severity}" if severity else "neither result nor rule has a severity")
            return "unknown"
        return severity

    def _note(self, scan: XccdfTestResult, reason: str) -> None:
        scan.not_understood = scan.not_understood or reason[:MAX_TEXT]

    def _expect_text(self) -> None:
        self._text, self._length = [], 0

    def text(self, data: str) -> None:
        if self._text is not None and self._length < MAX_TEXT:
            self._text.append(data[: MAX_TEXT - self._length])
            self._length += len(data)

    def end(self, _name: str) -> None:
        tag = self._path.pop()
        text = " ".join("".join(self._text).split()) if self._text is not None else None
        if tag in {"title", "result", "score"}:
            self._text = None
        if self._scan is None:
            if tag == "title" and text and self._rule and len(self.document.titles) < _MAX_TITLES:
                self.document.titles.setdefault(self._rule, text)
            elif tag == "Rule":
                self._rule = ""
            return
        if tag == "TestResult":
            self._scan.is_complete = self._scan.ended is not None
            self._scan = None
        elif tag == "result" and text is not None and self._result is not None:
            self._add_result(self._scan, text)
        elif tag == "score" and text is not None:
            self._scan.score = _percent(text)
        elif tag == "rule-result":
            if not self._has_result:
                self._note(self._scan, "a rule has no result")
            self._result = None

    def _add_result(self, scan: XccdfTestResult, text: str) -> None:
        assert self._result is not None
        rule, severity = self._result
        self._has_result = True
        result = text if text in RESULTS else "unknown"
        if result != text:
            self._note(scan, f"not a result: {text}")
        scan.results[result] = scan.results.get(result, 0) + 1
        if result not in _REPORTED or not rule:
            return
        if len(scan.rules) < MAX_RULES:
            scan.rules.append(XccdfRuleResult(rule, result, severity))
        else:
            scan.omitted_count += 1


def parse(chunks: Iterable[bytes]) -> XccdfDocument:
    """Parses a file in chunks; on an error, returns what precedes it with `error` set."""
    reader = _Reader()
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _reject_doctype
    try:
        _feed(parser, chunks)
    except XccdfRefusedError as e:
        reader.document.error = str(e)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as e:  # the last two: an unknown encoding
        reader.document.error = f"malformed XML: {e}"
    reader.resolve_severities()
    return reader.document


def _feed(parser: xml.parsers.expat.XMLParserType, chunks: Iterable[bytes]) -> None:
    fed = 0
    for chunk in chunks:
        parser.Parse(chunk, False)
        fed += len(chunk)
        if fed - parser.CurrentByteIndex > MAX_TOKEN_BYTES:
            raise XccdfRefusedError(f"a tag longer than {MAX_TOKEN_BYTES} bytes")
    parser.Parse(b"", True)


def _reject_doctype(*_: object) -> None:
    # A DOCTYPE declares entities, which can expand to gigabytes or include other files.
    raise XccdfRefusedError("it has a document type declaration, which no OpenSCAP result has")


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _percent(text: str) -> int | None:
    try:
        number = float(text[:32])
    except ValueError:
        return None
    return round(number) if 0 <= number <= 100 else None
