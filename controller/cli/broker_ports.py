"""`cordon broker ports`: what each EMQX node opens, who may reach it, firewall rules, and what can be reached."""

import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, assert_never

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat as Plain
from controller.cli.output import note, print_json, safe, say, show
from controller.domain.broker.ports import (
    MAX_NODES,
    AllowedNetworks,
    BrokerListener,
    NodePort,
    PortPeers,
    PortsError,
    PortUse,
    collisions,
    is_loopback,
    nftables,
    node_ports,
)

_TOO_OPEN: Final = "reachable, should not be"
_COLUMNS: Final = ("node", "host", "port", "for", "who may reach it", "note")


class PortsFormat(StrEnum):
    """What the ports are printed as."""

    TABLE = "table"
    JSON = "json"
    NFTABLES = "nftables"


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text)


@connected
def ports(
    client: Callable[[], ApiClient],
    node_name: Annotated[
        list[str] | None,
        _option("name of a node, as in emqx1@10.0.0.1; repeat for each. Needs neither broker nor controller"),
    ] = None,
    docker: Annotated[
        bool | None,
        typer.Option("--docker/--no-docker", help="whether the nodes run EMQX's Docker image (RPC on 5369)"),
    ] = None,
    operators: Annotated[
        list[str] | None,
        _option("network that may reach dashboard, API and plain listeners; repeat for each", "--operators"),
    ] = None,
    devices: Annotated[
        list[str] | None, _option("network that devices come from  [everywhere]; repeat for each", "--devices")
    ] = None,
    address: Annotated[
        list[str] | None, _option("HOST=ADDRESS of a node's host, for nftables; else it is looked up")
    ] = None,
    probe: Annotated[
        bool, _option("connect to each port from here, and tell what is reachable that should not be")
    ] = False,
    output: Annotated[
        PortsFormat, typer.Option("--output", "-o", help="table, json, or a file for nft -f")
    ] = PortsFormat.TABLE,
) -> None:
    """Show the ports that each node of the broker needs, and who has business there.

    Without --node-name they are those of the live cluster, as its API tells them. Exit status 1 when --probe reaches
    a port that should be closed to this machine, or two nodes of one host want the same port.
    """
    allowed = AllowedNetworks(tuple(operators or ()), tuple(devices or ()))
    try:
        found = _by_name(node_name, docker) if node_name else _live(client(), docker)
        reached = _probe(found) if probe else {}
        _print(found, reached, allowed, address or (), output)
    except PortsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    clashes = collisions(found)
    for text in clashes:
        note(text)
    if clashes or any(_verdict(one, reached) == _TOO_OPEN for one in found):
        raise typer.Exit(ExitCode.FAILED)


def _print(
    found: Sequence[NodePort],
    reached: "PortReachability",
    allowed: AllowedNetworks,
    address: Sequence[str],
    output: PortsFormat,
) -> None:
    match output:
        case PortsFormat.NFTABLES:
            say(nftables(found, _addresses(found, address), allowed).rstrip())
            if not allowed.operators:
                note("no --operators given: dashboard, API and plain listeners are closed to all other machines")
        case PortsFormat.JSON:
            print_json([_row(one, reached) for one in found])
        case PortsFormat.TABLE:
            _table(found, reached)
        case _:
            assert_never(output)


def _by_name(names: Sequence[str], docker: bool | None) -> list[NodePort]:
    if len(names) > MAX_NODES:
        raise PortsError(f"{len(names)} nodes are more than {MAX_NODES}")
    return [port for name in dict.fromkeys(names) for port in node_ports(name, docker=docker)]


def _live(client: ApiClient, docker: bool | None) -> list[NodePort]:
    found: list[NodePort] = []
    told = client.get("/broker/ports")
    if not told["nodes"]:
        raise CliError(f"the broker names none of its nodes: give --node-name  {safe(told['unknown'])}".rstrip())
    if told["unknown"]:
        note(f"listeners as EMQX has them by default: {safe(told['unknown'])}")
    for node in told["nodes"]:
        listening = None
        if node["listening"] is not None:
            listening = [BrokerListener(PortUse(one["use"]), one["address"], one["port"]) for one in node["listening"]]
        found += node_ports(node["node"], docker=docker, listening=listening)
    return found


def _addresses(found: Sequence[NodePort], given: Sequence[str]) -> dict[str, str]:
    addresses: dict[str, str] = {}
    for text in given:
        host, separator, address = text.partition("=")
        if not separator or not host or not address:
            raise PortsError(f"{text!r}: --address takes HOST=ADDRESS")
        addresses[host] = address
    for host in {one.host for one in found} - addresses.keys():
        try:
            addresses[host] = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError):
            continue  # the rules tell what is missing
    return addresses


PortReachability = dict[tuple[str, int], bool]


def _probe(found: Sequence[NodePort]) -> PortReachability:
    from controller.app.offline import probe_ports

    return probe_ports([(one.host, one.port) for one in found])


def _verdict(one: NodePort, reached: PortReachability) -> str:
    """Empty without a probe; devices' ports may be reached from anywhere, operators' from where Cordon runs."""
    if (one.host, one.port) not in reached:
        return ""
    if not reached[one.host, one.port]:
        return "not reachable"
    if one.peers is not PortPeers.CLUSTER:
        return "reachable"
    return "reachable, by loopback" if is_loopback(one.host) else _TOO_OPEN


def _row(one: NodePort, reached: PortReachability) -> dict[str, Any]:
    row: dict[str, Any] = {"node": one.node, "host": one.host, "port": one.port, "protocol": "tcp"}
    row |= {"use": one.use.value, "peers": one.peers.value, "note": one.note}
    if reached:
        row |= {"reachable": reached.get((one.host, one.port)), "verdict": _verdict(one, reached)}
    return row


def _table(found: Sequence[NodePort], reached: PortReachability) -> None:
    columns = (*_COLUMNS, "from here") if reached else _COLUMNS
    rows = [
        (one.node, one.host, one.port, one.use.value, one.peers.value, one.note)
        + ((_verdict(one, reached),) if reached else ())
        for one in found
    ]
    show(Plain.TABLE, found, columns, rows)
