"""`python -m controller.standin`: runs an EMQX stand-in, for demonstrations and tests."""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from controller.standin.options import StandInOptions
from controller.standin.release import RELEASES
from controller.standin.server import StandIn
from controller.standin.zones import InvalidSettingError
from schemas.secret_sources import (
    IN_PLACE_HELP,
    OutsideSecret,
    SecretError,
    secret_in_place,
    secret_source,
    why_unreadable,
)

_SECRET_VARIABLE = "CORDON_STANDIN_SECRET"  # noqa: S105 -- the name of a variable, not a secret


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not name or not colon:
        raise argparse.ArgumentTypeError("must be NAME:PASSWORD")
    return name, _secret(password, "--user")


def _read(text: str) -> str:
    source = secret_source(text)
    if isinstance(source, OutsideSecret):
        return source.read()
    try:
        return source.read_text("utf-8").strip()
    except OSError as error:
        raise SecretError(why_unreadable(source, error)) from error


def _secret(text: str, option: str = "--api-secret") -> str:
    try:
        return secret_in_place(text, option, _read, lambda line: sys.stderr.write(f"{line}\n"))
    except (SecretError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _config(text: str) -> object:
    try:
        return json.loads(Path(text).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: not JSON: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cordon standin",
        description="A stand-in for EMQX 5.8.9 or 6.3: MQTT 5 and 3.1.1 and the part of the HTTP API that Cordon uses. "
        "Prints one JSON line with its addresses when it is ready. Not EMQX, and not for production.",
    )
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes (default 1)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    for kind, what in (("mqtt", "MQTT"), ("tls", "MQTT over TLS"), ("api", "HTTP API")):
        parser.add_argument(
            f"--{kind}-port",
            type=int,
            action="append",
            default=[],
            metavar="PORT",
            help=f"{what} port of the next node; repeat for each node (default: a free port)",
        )
    parser.add_argument("--tls-ca", type=Path, help="CA that client certificates must come from (PEM)")
    parser.add_argument("--tls-cert", type=Path, help="server certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, help="key of the server certificate (PEM)")
    parser.add_argument("--api-key", default="cordon", help="API key (default cordon)")
    parser.add_argument(
        "--api-secret",
        type=_secret,
        help=f"API secret {IN_PLACE_HELP} (default ${_SECRET_VARIABLE}, else a random one, printed with the addresses)",
    )
    parser.add_argument(
        "--user",
        type=_user,
        action="append",
        default=[],
        metavar="NAME:PASSWORD",
        help=f"MQTT user, the password {IN_PLACE_HELP}; without any, clients may be anonymous",
    )
    parser.add_argument(
        "--config",
        type=_config,
        metavar="FILE",
        help="JSON with settings: zone, zones, authorization, sources, listeners, auto_subscribe, dashboard, api_keys, "
        "api_scopes, cookie, versions, security_profile, max_sessions, rule_engine; "
        "to imitate a differently configured broker",
    )
    parser.add_argument("--emqx", choices=tuple(RELEASES), default="5.8", help="release to answer as (default 5.8)")
    parser.add_argument(
        "--no-match", choices=("allow", "deny"), help="when no rule matches (default: allow with 5.8, deny with 6.3)"
    )
    return parser


def _addresses(standin: StandIn) -> dict[str, object]:
    tls = standin.tls_addresses
    return {
        "standin": True,
        "nodes": [
            {
                "name": name,
                "mqtt": "{}:{}".format(*standin.mqtt_addresses[index]),
                "tls": "{}:{}".format(*tls[index]) if tls else None,
                "api": standin.api_urls[index],
            }
            for index, name in enumerate(standin.node_names)
        ],
    }


async def _serve(options: StandInOptions, on_ready: Callable[[dict[str, object]], None]) -> None:
    """Serves until SIGTERM or SIGINT; passes the addresses to `on_ready` once it listens."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with StandIn(options) as standin:
        on_ready(_addresses(standin))
        await stop.wait()


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Returns uvloop's runner where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    return run


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status: 1 when it cannot start, 2 for invalid arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    given = args.api_secret or os.environ.get(_SECRET_VARIABLE)
    secret, generated = given or secrets.token_urlsafe(24), not given
    try:
        options = StandInOptions(
            nodes=args.nodes,
            host=args.host,
            mqtt_ports=tuple(args.mqtt_port),
            tls_ports=tuple(args.tls_port),
            api_ports=tuple(args.api_port),
            tls_ca=args.tls_ca,
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            api_key=args.api_key,
            api_secret=secret,
            users=tuple(args.user),
            emqx=args.emqx,
            no_match=args.no_match,
            config=args.config,
        )
    except ValueError as error:
        parser.error(str(error))

    def on_ready(addresses: dict[str, object]) -> None:
        sys.stderr.write(f"cordon standin: this is a stand-in for EMQX {RELEASES[args.emqx].version}, not EMQX\n")
        extra = {"api_key": args.api_key, "api_secret": secret} if generated else {}
        sys.stdout.write(json.dumps({**addresses, **extra}) + "\n")
        sys.stdout.flush()

    try:
        _runner()(_serve(options, on_ready))
    except (OSError, InvalidSettingError) as error:
        sys.stderr.write(f"cordon standin: cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
