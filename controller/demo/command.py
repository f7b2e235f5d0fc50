"""`cordon demo`: its options, and what it answers with."""

import asyncio
import json
import secrets
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from controller.demo.options import MAX_DEVICES, ROLES, DemoOptions, ExternalBroker, new_run
from controller.demo.outcome import DemoResult
from controller.demo.runner import FleetProgressView, perform
from controller.demo.view import LiveProgressView, PlainProgressView, summary

_REAL: Final = "A real EMQX instead of the stand-in"
_INTERRUPTED: Final = 130  # 128 + SIGINT
_MAX_SEED: Final = 2**31
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoOutput(StrEnum):
    """What standard output gets: the story, or one JSON object as its last line."""

    TEXT = "text"
    JSON = "json"


def demo(
    devices: Annotated[int, typer.Option(min=ROLES, max=MAX_DEVICES, help="simulated devices")] = 20,
    seed: Annotated[
        int | None, typer.Option(min=0, max=_MAX_SEED, help="gives out the parts; the same again  [random]")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="shorter times, for tests")] = False,
    output: Annotated[DemoOutput, typer.Option(help="text, or one JSON object as the last line")] = DemoOutput.TEXT,
    emqx: Annotated[
        str | None, typer.Option(metavar="URL[,URL...]", help="its HTTP API, each node", rich_help_panel=_REAL)
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key", rich_help_panel=_REAL)] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="CORDON_EMQX_SECRET", help="its secret", rich_help_panel=_REAL)
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT[,...]", help="its MQTT listeners", rich_help_panel=_REAL)
    ] = None,
    mqtt_user: Annotated[str | None, typer.Option(help="user name of all clients", rich_help_panel=_REAL)] = None,
    mqtt_password: Annotated[
        str | None, typer.Option(envvar="CORDON_MQTT_PASSWORD", help="their password", rich_help_panel=_REAL)
    ] = None,
    mqtt_ca: Annotated[Path | None, typer.Option(help="authority of the listeners: TLS", rich_help_panel=_REAL)] = None,
    mqtt_cert: Annotated[Path | None, typer.Option(help="certificate of all clients", rich_help_panel=_REAL)] = None,
    mqtt_key: Annotated[Path | None, typer.Option(help="key of that certificate", rich_help_panel=_REAL)] = None,
) -> None:
    """Play the whole loop with real processes: report, judge, contain, repair, release.

    Exit status 0 only if every step was observed at the broker or at a device. A broker given by --emqx is left as it
    was found.
    """
    broker = None
    if emqx is not None:
        if key is None or secret is None or mqtt is None:
            raise typer.BadParameter("--emqx needs --key, --secret and --mqtt")
        broker = ExternalBroker(
            _list(emqx), key, secret, _list(mqtt), mqtt_user, mqtt_password, mqtt_ca, mqtt_cert, mqtt_key
        )
        _check(broker)
    elif any((key, mqtt, mqtt_user, mqtt_ca, mqtt_cert, mqtt_key)):
        raise typer.BadParameter("--key, --mqtt and the like belong to --emqx")
    chosen = secrets.randbelow(_MAX_SEED) if seed is None else seed
    options = DemoOptions(devices, chosen, fast, new_run(), broker)
    raise typer.Exit(_run(options, output))


def _list(text: str) -> tuple[str, ...]:
    return tuple(one.strip().rstrip("/") for one in text.split(",") if one.strip())


def _check(broker: ExternalBroker) -> None:
    if not broker.api or not broker.mqtt:
        raise typer.BadParameter("--emqx and --mqtt name at least one address")
    if (broker.certificate is None) != (broker.certificate_key is None):
        raise typer.BadParameter("--mqtt-cert and --mqtt-key belong together")
    if (broker.user is None) != (broker.password is None):
        raise typer.BadParameter("--mqtt-user and --mqtt-password belong together")


def _run(options: DemoOptions, output: DemoOutput) -> int:
    is_live = output is DemoOutput.TEXT and sys.stdout.isatty()
    # With JSON, what happens goes to standard error: standard output is for the object alone.
    stream = sys.stderr if output is DemoOutput.JSON else sys.stdout
    view: FleetProgressView = LiveProgressView(Console()) if is_live else PlainProgressView(stream)
    try:
        outcome, words = asyncio.run(_until_signalled(options, view))
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; what was made at the broker was removed\n")
        return _INTERRUPTED
    view.close(summary(outcome))
    if words:
        sys.stderr.write(f"{words}\n")
    if output is DemoOutput.JSON:
        _print_json(outcome)
    return 0 if outcome.ok else 1


async def _until_signalled(options: DemoOptions, view: FleetProgressView) -> tuple[DemoResult, str]:
    """Play; a signal ends the story early, and the stage is still taken down."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None

    def end_early() -> None:
        # Once: a second signal must not cut short what leaves the broker as it was found.
        if not me.cancelling():
            me.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, end_early)
    try:
        return await perform(options, view)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _print_json(outcome: DemoResult) -> None:
    sys.stdout.write(json.dumps(outcome.as_json()) + "\n")
    sys.stdout.flush()
