"""Command-line options of the simulator, in their own module so that the agent's help does not load the simulator."""

import argparse
from pathlib import Path

from schemas.secret_sources import SECRET_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `cordon-agent simulate`."""
    parser.add_argument("--devices", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--config", type=Path, help="an agent's configuration to take servers, TLS and controller keys from"
    )
    parser.add_argument(
        "--servers", metavar="URL[,URL...]", help="mqtt://host:port or mqtts://host:port, tried in turn"
    )
    parser.add_argument("--protocol", choices=("auto", "5", "3.1.1"), help="of MQTT (default: auto)")
    parser.add_argument("--prefix", default="sim-", help="of the device ids (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    access = parser.add_argument_group("access")
    access.add_argument("--ca", type=Path, help="authority of the broker's certificate")
    access.add_argument("--cert", type=Path, help="one client certificate for all devices")
    access.add_argument("--key", type=Path, help="its key")
    access.add_argument("--cert-dir", type=Path, help="folder with ID.pem and ID.key for each device")
    access.add_argument("--username", help="may contain {id}")
    access.add_argument("--password-file", help=f"the password: {SECRET_HELP}")
    access.add_argument("--connect-timeout", default="5s", metavar="TIME")
    access.add_argument("--reconnect-max", default="5s", metavar="TIME", help="longest wait before connecting again")
    _add_behaviour(parser.add_argument_group("behaviour of the devices"))
    output = parser.add_argument_group("control and output")
    output.add_argument(
        "--control", nargs="?", const="stdin", choices=("stdin",),
        help="read JSON lines from standard input and write observations to standard output",
    )  # fmt: skip
    output.add_argument(
        "--observe", metavar="KIND[,KIND...]", help="write observations to standard output, only of these kinds"
    )
    output.add_argument("--for", dest="duration", metavar="TIME", help="stop after this time")


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--postures", type=Path, metavar="FILE", help="JSON list of section objects, assigned to the devices in turn"
    )
    group.add_argument(
        "--script", type=Path, metavar="FILE", help="JSON lines of changes, each with its time in seconds in `at`"
    )
    group.add_argument(
        "--controller-key",
        action="append",
        default=[],
        metavar="KEY",
        help="of accepted commands (ed25519:...)",
    )
    group.add_argument("--allow", metavar="ACTION[,ACTION...]", help="accepted actions (default: all simulated)")
    group.add_argument("--heartbeat-every", default="10s", metavar="TIME")
    group.add_argument("--receipt-timeout", default="10s", metavar="TIME")
    group.add_argument("--action-time", default="200ms", metavar="TIME", help="duration of a command")
    group.add_argument(
        "--software",
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="target installed by an earlier update",
    )
    group.add_argument(
        "--update-outcome", action="append", default=[], metavar="[NAME/VERSION=]OUTCOME",
        help="of updates: good, unhealthy, refused, broken, declined, silent, lies, sick_later (default: good)",
    )  # fmt: skip
    group.add_argument("--telemetry-every", metavar="TIME", help="interval of the fleet's own messages")
    group.add_argument("--telemetry-topic", default="fleet/{id}/telemetry", metavar="TOPIC", help="may contain {id}")
    group.add_argument("--telemetry-bytes", type=int, default=64, metavar="BYTES")
    group.add_argument(
        "--subscribe", action="append", default=[], metavar="TOPIC", help="further subscription; may contain {id}"
    )
