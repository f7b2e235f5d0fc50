"""`rescan` and `scan.run`: a scan with a full report, and a run of a hardening tool whose result the scan reads."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, choice_param, reject_unknown_params
from device_agent.actions.edit import require_root
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_SECONDS: Final = 1800.0
_PROGRAMS: Final = {"lynis": "lynis", "openscap": "oscap"}
_REPORTS: Final = {"lynis": Path("/var/log/lynis-report.dat"), "openscap": Path("/var/lib/cordon-agent/openscap.xml")}
_CONTENT: Final = Path("/usr/share/xml/scap/ssg/content")
_FINDINGS: Final = frozenset({0, 2})  # of oscap; 2: a rule failed
_NEVER: Final = "never"


class Rescan:
    """`rescan`: does nothing itself: a scan and a full report follow every successful command."""

    is_repeatable = True

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def plan(self, params: Params) -> ActionPlan:
        del params
        return ActionPlan(before={}, changes="scan and send a full report")

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Does nothing: the scan follows the command."""

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del params, before
        return Verification(is_reached=True)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        del params, before
        return "nothing to undo"


class RunScan:
    """`scan.run {tool}`: `lynis` or `openscap`. Changes only the report of the tool."""

    is_repeatable = True

    def __init__(
        self, system: System, reports: Mapping[str, Path] = _REPORTS, lynis_options: Sequence[str] = ()
    ) -> None:
        """`reports` are the result files by tool; `lynis_options` may restrict its tests."""
        self._options = lynis_options
        self._system = system
        self._reports = reports

    def check(self, params: Params) -> None:
        reject_unknown_params(params, "tool")
        choice_param(params, "tool", _PROGRAMS)

    def plan(self, params: Params) -> ActionPlan:
        """Requires that the tool is installed: installing a package needs a person's decision."""
        tool = str(params["tool"])
        if not self._system.is_live:
            raise ActionError("tools run on the running system only")
        require_root(self._system)
        if shutil.which(_PROGRAMS[tool]) is None:
            raise ActionError(f"{_PROGRAMS[tool]} is not installed")
        return ActionPlan(before={"was": self._report_id(tool)}, changes=" ".join(self._argv(tool)))

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Runs the tool; its findings are no failure."""
        del before
        tool = str(params["tool"])
        try:
            self._reports[tool].parent.mkdir(parents=True, exist_ok=True)
            ok = _FINDINGS if tool == "openscap" else frozenset(range(128))
            run(self._argv(tool), seconds=_SECONDS, ok_statuses=ok)
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        except OSError as e:
            raise ActionError(f"{e.filename}: {e.strerror}") from e

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that the tool wrote a new report."""
        report_id = self._report_id(str(params["tool"]))
        return Verification(report_id not in {_NEVER, before.get("was", _NEVER)}, {"is": report_id})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        del params, before
        return "nothing to undo"

    def _argv(self, tool: str) -> list[str]:
        if tool == "lynis":
            report = str(self._reports[tool])
            # Not --cronjob: with it the pid file of a killed run prevents all later runs.
            return [
                "lynis",
                "audit",
                "system",
                "--quick",
                "--quiet",
                "--no-colors",
                *self._options,
                "--report-file",
                report,
            ]
        content = sorted(_CONTENT.glob("ssg-*-ds.xml"))
        if not content:
            raise ActionError(f"openscap has no content: no ssg-*-ds.xml in {_CONTENT}")
        return ["oscap", "xccdf", "eval", "--results", str(self._reports[tool]), str(content[0])]

    def _report_id(self, tool: str) -> str:
        try:
            return f"report of {self._reports[tool].stat().st_mtime_ns}"
        except OSError:
            return _NEVER
