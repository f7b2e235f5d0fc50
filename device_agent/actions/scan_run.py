"""Runs a hardening tool that is installed, so that the next report has its fresh result."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, choice, only
from device_agent.actions.edit import need_root
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_SECONDS: Final = 1800.0
_PROGRAMS: Final = {"lynis": "lynis", "openscap": "oscap"}
_REPORTS: Final = {"lynis": Path("/var/log/lynis-report.dat"), "openscap": Path("/var/lib/cordon-agent/openscap.xml")}
_CONTENT: Final = Path("/usr/share/xml/scap/ssg/content")
_FINDINGS: Final = frozenset({0, 2})  # oscap: 2 is "some rule failed"; lynis has other ways to say so
_NEVER: Final = "never"


class RunScan:
    """`scan.run {tool}`: `lynis` or `openscap`. Changes nothing but the tool's own report."""

    is_repeatable = True

    def __init__(
        self, system: System, reports: Mapping[str, Path] = _REPORTS, lynis_options: Sequence[str] = ()
    ) -> None:
        """`reports`: where each tool writes what it found; `lynis_options`: for fewer of its tests."""
        self._options = lynis_options
        self._system = system
        self._reports = reports

    def check(self, params: Params) -> None:
        """One parameter, `tool`."""
        only(params, "tool")
        choice(params, "tool", _PROGRAMS)

    def plan(self, params: Params) -> ActionPlan:
        """The tool has to be installed: a new package is for a person to decide."""
        tool = str(params["tool"])
        if not self._system.is_live:
            raise ActionError("tools run on the running system only")
        need_root(self._system)
        if shutil.which(_PROGRAMS[tool]) is None:
            raise ActionError(f"{_PROGRAMS[tool]} is not installed")
        return ActionPlan(was={"was": self._written(tool)}, would=" ".join(self._argv(tool)))

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Run it; what it finds is its business."""
        del was
        tool = str(params["tool"])
        try:
            self._reports[tool].parent.mkdir(parents=True, exist_ok=True)
            ok = _FINDINGS if tool == "openscap" else frozenset(range(128))
            run(self._argv(tool), seconds=_SECONDS, ok=ok)
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        except OSError as e:
            raise ActionError(f"{e.filename}: {e.strerror}") from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Its report is another one."""
        now = self._written(str(params["tool"]))
        return Verification(now not in {_NEVER, was.get("was", _NEVER)}, {"is": now})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Nothing of the system was changed."""
        del params, was
        return "nothing to undo"

    def _argv(self, tool: str) -> list[str]:
        if tool == "lynis":
            report = str(self._reports[tool])
            # Not --cronjob: with it the pid file of a run that was killed keeps all later ones from starting.
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
            raise ActionError(f"openscap has nothing to judge by: no ssg-*-ds.xml in {_CONTENT}")
        return ["oscap", "xccdf", "eval", "--results", str(self._reports[tool]), str(content[0])]

    def _written(self, tool: str) -> str:
        try:
            return f"report of {self._reports[tool].stat().st_mtime_ns}"
        except OSError:
            return _NEVER
