"""The command line of the agent: `cordon-agent run | launch | enrol | report | do | updates | doctor | install | ...`.

Exit status: 0 done or stopped; 1 something failed while running; 2 the command line or the configuration is wrong;
3 the state folder cannot be used. Errors are one line on standard error.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

from device_agent import __version__
from device_agent.cli import do, enrol, output_streams, report, setup, updates
from device_agent.errors import AgentError, ExitCode
from schemas.base import shortened
from schemas.output_streams import prepare_streams

DEFAULT_CONFIG: Final = Path("/etc/cordon/agent.toml")
_NOUNS: Final = "run | launch | enrol | report | do | updates | doctor | install | passphrase | simulate"
MAX_LINE: Final = 8 * 1024  # characters: exceptions have texts of others in them, of any length
_TEXT_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _TextFormatter(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return shortened(super().format(record), MAX_LINE)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(record.getMessage(), MAX_LINE),
        }
        if record.exc_info:
            entry["error"] = shortened(self.formatException(record.exc_info), MAX_LINE)
        return json.dumps(entry)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cordon-agent",
        description="Reports the security posture of this device, and runs signed commands.",
        epilog="Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration, 3 state folder unusable.",
    )
    parser.add_argument("--version", action="version", version=f"cordon-agent {__version__}")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of the log on standard error")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    nouns = parser.add_subparsers(dest="noun", required=True, metavar=_NOUNS)
    run = nouns.add_parser("run", help="run until stopped", description="Run the agent until SIGTERM or SIGINT.")
    run.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="default: %(default)s")
    launch = nouns.add_parser(
        "launch",
        help="run, and let the agent update itself",
        description="Run the agent of the slot that an update selected, or this one.",
    )
    launch.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="default: %(default)s")
    report.add_parser(nouns)
    do.add_parser(nouns)
    updates.add_parser(nouns, DEFAULT_CONFIG)
    setup.add_parsers(nouns)
    enrol.add_parser(nouns)
    from device_agent.simulator.arguments import add_arguments  # small; the simulator itself is loaded when it runs

    add_arguments(
        nouns.add_parser(
            "simulate",
            help="many light devices in one process",
            description="Simulate devices over real MQTT connections, for trials, demonstrations and load tests.",
        )
    )
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from device_agent.actions.firewall import restore_saved_rules
    from device_agent.host.system import System
    from device_agent.identity.store import ConfigurationFile
    from device_agent.runtime import ConfigReload, run

    stop, configuration = threading.Event(), ConfigurationFile(arguments.config)
    reload = ConfigReload(threading.Event(), configuration.load, configuration.has_another_pair)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGHUP, lambda _number, _frame: reload.requested.set())
    settings, system = configuration.load(), System(is_root_user=os.geteuid() == 0)
    restore_saved_rules(system)
    if run(settings, system, stop, reload=reload):
        from device_agent.updates.launcher import exec_launcher

        exec_launcher(os.environ)


def _launch(arguments: argparse.Namespace) -> None:
    from device_agent.updates.launcher import launch

    launch(arguments, _run)


def _simulate(arguments: argparse.Namespace) -> None:
    from device_agent.simulator.command import simulate

    simulate(arguments)


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    prepare_streams()
    try:
        code = _main(argv)
    except BrokenPipeError:  # the reader of standard output is gone
        code = ExitCode.FAILED
    except SystemExit:  # after help, version or a wrong option
        if output_streams.end(ExitCode.OK, _print_error):
            return ExitCode.FAILED
        raise
    return output_streams.end(code, _print_error)


def _main(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if arguments.log_format == "json" else _TextFormatter(_TEXT_FORMAT))
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler])
    # It writes a line for each key that did not sign, also where enough others did; what fails is raised.
    logging.getLogger("tuf").setLevel(logging.ERROR)
    try:
        handlers = {
            "run": _run,
            "enrol": enrol.enrol,
            "launch": _launch,
            "report": report.report,
            "do": do.do,
            "updates": updates.updates,
            "simulate": _simulate,
            **setup.HANDLERS,
        }
        handlers[arguments.noun](arguments)
    except AgentError as e:
        return _print_error(str(e), e.exit_code)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return ExitCode.FAILED
    except Exception as e:  # the one place where an unforeseen error becomes a line
        logging.getLogger(__name__).debug("unforeseen", exc_info=e)
        return _print_error(f"{type(e).__name__}: {e} (more with --log-level debug)", ExitCode.FAILED)
    return ExitCode.OK


def _print_error(text: str, code: ExitCode) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"cordon-agent: {shortened(' '.join(text.split()), MAX_LINE)}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
