"""The command line of the simulator, apart from it so that the agent's help does not load it."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add everything `cordon-agent simulate` takes."""
    parser.add_argument("--devices", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--config", type=Path, help="an agent's configuration: servers, TLS, controller keys are taken from there"
    )
    parser.add_argument(
        "--servers", metavar="URL[,URL...]", help="mqtt://host:port or mqtts://host:port, tried in turn"
    )
    parser.add_argument("--protocol", choices=("auto", "5", "3.1.1"), help="of MQTT (default: auto)")
    parser.add_argument("--prefix", default="sim-", help="of the device ids (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything left to chance")
    access = parser.add_argument_group("access")
    access.add_argument("--ca", type=Path, help="authority of the broker's certificate")
    access.add_argument("--cert", type=Path, help="one client certificate for all devices")
    access.add_argument("--key", type=Path, help="its key")
    access.add_argument("--cert-dir", type=Path, help="folder with ID.pem and ID.key for each device")
    access.add_argument("--username", help="may hold {id}")
    access.add_argument("--password-file", type=Path, help="file whose first line is the password")
    access.add_argument("--connect-timeout", default="5s", metavar="TIME")
    access.add_argument("--reconnect-max", default="5s", metavar="TIME", help="longest wait before connecting again")
    life = parser.add_argument_group("what the devices do")
    life.add_argument("--postures", type=Path, metavar="FILE", help="JSON list of section objects, given out in turn")
    life.add_argument("--script", type=Path, metavar="FILE", help="JSON lines of changes, with their seconds in `at`")
    life.add_argument(
        "--controller-key", action="append", default=[], metavar="KEY", help="whose commands to obey (ed25519:...)"
    )
    life.add_argument("--allow", metavar="ACTION[,ACTION...]", help="actions to obey (default: all that are simulated)")
    life.add_argument("--heartbeat-every", default="10s", metavar="TIME")
    life.add_argument("--receipt-timeout", default="10s", metavar="TIME")
    life.add_argument("--action-time", default="200ms", metavar="TIME", help="how long a command takes")
    _updates(life)
    life.add_argument("--telemetry-every", metavar="TIME", help="publish the fleet's own data this often")
    life.add_argument("--telemetry-topic", default="fleet/{id}/telemetry", metavar="TOPIC", help="may hold {id}")
    life.add_argument("--telemetry-bytes", type=int, default=64, metavar="BYTES")
    life.add_argument(
        "--subscribe", action="append", default=[], metavar="TOPIC", help="also listen there; may hold {id}"
    )
    watch = parser.add_argument_group("watching")
    watch.add_argument(
        "--control", nargs="?", const="stdin", choices=("stdin",),
        help="take JSON lines on standard input and write observations to standard output",
    )  # fmt: skip
    watch.add_argument(
        "--observe", metavar="KIND[,KIND...]", help="write only these observations (implies writing them)"
    )
    watch.add_argument("--for", dest="duration", metavar="TIME", help="stop after this time")


def _updates(life: argparse._ArgumentGroup) -> None:
    life.add_argument(
        "--software", action="append", default=[], metavar="NAME=VERSION", help="what updates have installed before"
    )
    life.add_argument(
        "--update-outcome", action="append", default=[], metavar="[NAME/VERSION=]OUTCOME",
        help="how updates end: good, unhealthy, refused, broken, declined, silent, lies, sick_later (default: good)",
    )  # fmt: skip
