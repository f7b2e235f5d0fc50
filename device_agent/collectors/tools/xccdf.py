"""Reads XCCDF results and ARF files as a stream: no tree, no document type, and a torn file is a part."""

import re
import xml.parsers.expat
from collections.abc import Iterable
from dataclasses import dataclass, field
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
MAX_RULES: Final = 20_000  # of one scan
MAX_SCANS: Final = 64  # of one file
MAX_TEXT: Final = 512  # characters of a title or a word that are kept
MAX_DEPTH: Final = 256
MAX_TOKEN_BYTES: Final = 1024 * 1024  # of one tag; an unfinished one is read again with every piece
_NAMESPACE: Final = re.compile(r"^http://checklists\.nist\.gov/xccdf/1\.[12]$")
_TOLD: Final = frozenset({"fail", "error", "unknown"})
_TITLES: Final = 20_000


class XccdfRefusedError(Exception):
    """The file is not one to read on; the text says why."""


@dataclass(frozen=True, slots=True)
class XccdfRuleResult:
    """A rule that did not pass."""

    rule: str
    result: str
    severity: str


@dataclass(slots=True)
class XccdfTestResult:
    """One TestResult; `is_complete` once its end was read and says when it ended."""

    benchmark: str
    profile: str = ""
    ended: datetime | None = None
    score: int | None = None
    is_complete: bool = False
    results: dict[str, int] = field(default_factory=dict)
    rules: list[XccdfRuleResult] = field(default_factory=list)
    not_kept: int = 0


@dataclass(slots=True)
class XccdfDocument:
    """Everything a file said: scans, titles by rule, and why it broke off ("" when it did not)."""

    scans: list[XccdfTestResult] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


class _Reader:
    """The state between two tags; only elements of XCCDF's own namespace count."""

    def __init__(self) -> None:
        self.found = XccdfDocument()
        self._path: list[str] = []
        self._benchmark = ""
        self._rule = ""  # of the benchmark: whose title comes
        self._scan: XccdfTestResult | None = None
        self._result: tuple[str, str] | None = None  # rule and severity
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
            if len(self.found.scans) >= MAX_SCANS:
                raise XccdfRefusedError(f"more than {MAX_SCANS} results in one file")
            self._scan = XccdfTestResult(self._benchmark, ended=_time(attributes.get("end-time", "")))
            self.found.scans.append(self._scan)
        elif tag == "Benchmark":
            self._benchmark = attributes.get("id", "")[:MAX_TEXT]
        elif tag == "Rule":
            self._rule = attributes.get("id", "")[:MAX_TEXT]
        elif tag == "title" and self._path[-2:-1] == ["Rule"]:
            self._listen()

    def _start_in_scan(self, scan: XccdfTestResult, tag: str, attributes: dict[str, str]) -> None:
        parent = self._path[-2]
        if parent == "TestResult" and tag == "benchmark":
            scan.benchmark = (
                attributes.get("id", "")[:MAX_TEXT] or scan.benchmark or attributes.get("href", "")[:MAX_TEXT]
            )
        elif parent == "TestResult" and tag == "profile":
            scan.profile = attributes.get("idref", "")[:MAX_TEXT]
        elif parent == "TestResult" and tag == "rule-result":
            severity = attributes.get("severity", "unknown")
            self._result = (attributes.get("idref", "")[:MAX_TEXT], severity if severity in SEVERITIES else "unknown")
        elif (parent == "rule-result" and tag == "result") or (parent == "TestResult" and tag == "score"):
            self._listen()
            if tag == "score" and attributes.get("maximum", "100").split(".")[0] != "100":
                self._text = None  # a score of another scale would need its maximum to mean anything

    def _listen(self) -> None:
        self._text, self._length = [], 0

    def text(self, data: str) -> None:
        if self._text is not None and self._length < MAX_TEXT:
            self._text.append(data[: MAX_TEXT - self._length])
            self._length += len(data)

    def end(self, _name: str) -> None:
        tag = self._path.pop()
        words = " ".join("".join(self._text).split()) if self._text is not None else None
        if tag in {"title", "result", "score"}:
            self._text = None
        if self._scan is None:
            if tag == "title" and words and self._rule and len(self.found.titles) < _TITLES:
                self.found.titles.setdefault(self._rule, words)
            elif tag == "Rule":
                self._rule = ""
            return
        if tag == "TestResult":
            self._scan.is_complete = self._scan.ended is not None
            self._scan = None
        elif tag == "result" and words is not None and self._result is not None:
            self._count(self._scan, words)
        elif tag == "score" and words is not None:
            self._scan.score = _percent(words)
        elif tag == "rule-result":
            self._result = None

    def _count(self, scan: XccdfTestResult, word: str) -> None:
        assert self._result is not None
        rule, severity = self._result
        result = word if word in RESULTS else "unknown"
        scan.results[result] = scan.results.get(result, 0) + 1
        if result not in _TOLD or not rule:
            return
        if len(scan.rules) < MAX_RULES:
            scan.rules.append(XccdfRuleResult(rule, result, severity))
        else:
            scan.not_kept += 1


def parse(chunks: Iterable[bytes]) -> XccdfDocument:
    """Read a file in pieces; `trouble` says why it broke off, what came before is kept."""
    reader = _Reader()
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        _feed(parser, chunks)
    except XccdfRefusedError as e:
        reader.found.trouble = str(e)
    except (
        xml.parsers.expat.ExpatError,
        ValueError,
        LookupError,
    ) as e:  # ValueError, LookupError: an unheard-of encoding
        reader.found.trouble = f"not XML to its end: {e}"
    return reader.found


def _feed(parser: xml.parsers.expat.XMLParserType, chunks: Iterable[bytes]) -> None:
    fed = 0
    for chunk in chunks:
        parser.Parse(chunk, False)
        fed += len(chunk)
        if fed - parser.CurrentByteIndex > MAX_TOKEN_BYTES:
            raise XccdfRefusedError(f"a tag longer than {MAX_TOKEN_BYTES} bytes")
    parser.Parse(b"", True)


def _refuse_doctype(*_: object) -> None:
    # Entities are declared there: a few bytes could become gigabytes, or the content of another file.
    raise XccdfRefusedError("it has a document type declaration, which no result of OpenSCAP has")


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
