"""`cordon demo` and `cordon demo-update`: their options."""

import secrets
from pathlib import Path
from typing import Annotated, Final

import typer

from controller.demo.containment import ContainmentDemo
from controller.demo.containment_context import ROLES, DemoOptions
from controller.demo.options import MAX_DEVICES, ExternalBroker
from controller.demo.runner import DemoOutput, execute
from controller.demo.update import UpdateDemo
from controller.demo.update_context import UpdateDemoOptions

_EMQX: Final = "A real EMQX instead of the stand-in"
_MIN_UPDATED: Final = 8  # devices: three to test with, two canaries, and some more
_MAX_SEED: Final = 2**31

SeedOption = Annotated[
    int | None, typer.Option(min=0, max=_MAX_SEED, help="determines what is left to chance  [random]")
]
FastOption = Annotated[bool, typer.Option("--fast", help="shorter times, for tests")]
DemoOutputOption = Annotated[DemoOutput, typer.Option("--output", help="text, or one JSON object as the last line")]


def demo(
    devices: Annotated[int, typer.Option(min=ROLES, max=MAX_DEVICES, help="simulated devices")] = 20,
    seed: SeedOption = None,
    fast: FastOption = False,
    output: DemoOutputOption = DemoOutput.TEXT,
    emqx: Annotated[
        str | None, typer.Option(metavar="URL[,URL...]", help="its HTTP API, each node", rich_help_panel=_EMQX)
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key", rich_help_panel=_EMQX)] = None,
    secret: Annotated[
        str | None, typer.Option(envvar="CORDON_EMQX_SECRET", help="its secret", rich_help_panel=_EMQX)
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT[,...]", help="its MQTT listeners", rich_help_panel=_EMQX)
    ] = None,
    mqtt_user: Annotated[str | None, typer.Option(help="user name of all clients", rich_help_panel=_EMQX)] = None,
    mqtt_password: Annotated[
        str | None, typer.Option(envvar="CORDON_MQTT_PASSWORD", help="their password", rich_help_panel=_EMQX)
    ] = None,
    mqtt_ca: Annotated[Path | None, typer.Option(help="authority of the listeners: TLS", rich_help_panel=_EMQX)] = None,
    mqtt_cert: Annotated[Path | None, typer.Option(help="certificate of all clients", rich_help_panel=_EMQX)] = None,
    mqtt_key: Annotated[Path | None, typer.Option(help="key of that certificate", rich_help_panel=_EMQX)] = None,
) -> None:
    """Run the whole loop with real processes: report, evaluate, contain, repair, release.

    Exit status 0 only if every step was observed at the broker or at a device. A broker given by --emqx is left as it
    was found.
    """
    broker = None
    if emqx is not None:
        if key is None or secret is None or mqtt is None:
            raise typer.BadParameter("--emqx needs --key, --secret and --mqtt")
        broker = ExternalBroker(
            _split(emqx), key, secret, _split(mqtt), mqtt_user, mqtt_password, mqtt_ca, mqtt_cert, mqtt_key
        )
        _check(broker)
    elif any((key, mqtt, mqtt_user, mqtt_ca, mqtt_cert, mqtt_key)):
        raise typer.BadParameter("--key, --mqtt and the like belong to --emqx")
    raise typer.Exit(execute(ContainmentDemo(DemoOptions(devices, _chosen(seed), fast, broker)), output))


def demo_update(
    devices: Annotated[
        int, typer.Option(min=_MIN_UPDATED, max=MAX_DEVICES, help="simulated devices besides the real agent")
    ] = 60,
    seed: SeedOption = None,
    fast: FastOption = False,
    output: DemoOutputOption = DemoOutput.TEXT,
) -> None:
    """Roll out a good update through three rings, and a bad one that stops itself in the second and is rolled back.

    Broker, controller, simulated fleet and one agent are real processes; the updates are signed and installed for real.
    Exit status 0 only if both were observed at the devices.
    """
    raise typer.Exit(execute(UpdateDemo(UpdateDemoOptions(devices, _chosen(seed), fast)), output))


def _chosen(seed: int | None) -> int:
    return secrets.randbelow(_MAX_SEED) if seed is None else seed


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())


def _check(broker: ExternalBroker) -> None:
    if not broker.api or not broker.mqtt:
        raise typer.BadParameter("--emqx and --mqtt name at least one address")
    if (broker.certificate is None) != (broker.certificate_key is None):
        raise typer.BadParameter("--mqtt-cert and --mqtt-key belong together")
    if (broker.user is None) != (broker.password is None):
        raise typer.BadParameter("--mqtt-user and --mqtt-password belong together")
