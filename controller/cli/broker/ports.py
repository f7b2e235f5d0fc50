"""`cordon broker ports`: the ports of each EMQX node, their peers, firewall rules, and reachability from here."""

import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, assert_never

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, note, print_json, safe, say, show
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
        bool, _option("connect to each port from here, and show which are reachable that should not be")
    ] = False,
    output: Annotated[
        PortsFormat, typer.Option("--output", "-o", help="table, json, or a file for nft -f")
    ] = PortsFormat.TABLE,
) -> None:
    """Show the ports that each node of the broker needs, and which machines have to reach them.

    Without --node-name they are those of the live cluster, as its API lists them. Exit status 1 when --probe reaches
    a port that should be closed to this machine, or two nodes of one host want the same port.
    """
    allowed = AllowedNetworks(tuple(operators or ()), tuple(devices or ()))
    try:
        needed = _named_ports(node_name, docker) if node_name else _live_ports(client(), docker)
        reached = _probe(needed) if probe else {}
        _print(needed, reached, allowed, address or (), output)
    except PortsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    conflicts = collisions(needed)
    for text in conflicts:
        note(text)
    if conflicts or any(_verdict(port, reached) == _TOO_OPEN for port in needed):
        raise typer.Exit(ExitCode.FAILED)


def _print(
    ports: Sequence[NodePort],
    reached: "PortReachability",
    allowed: AllowedNetworks,
    address: Sequence[str],
    output: PortsFormat,
) -> None:
    match output:
        case PortsFormat.NFTABLES:
            say(nftables(ports, _addresses(ports, address), allowed).rstrip())
            if not allowed.operators:
                note("no --operators given: dashboard, API and plain listeners are closed to all other machines")
        case PortsFormat.JSON:
            print_json([_row(port, reached) for port in ports])
        case PortsFormat.TABLE:
            _table(ports, reached)
        case _:
            assert_never(output)


def _named_ports(names: Sequence[str], docker: bool | None) -> list[NodePort]:
    if len(names) > MAX_NODES:
        raise PortsError(f"{len(names)} nodes are more than {MAX_NODES}")
    return [port for name in dict.fromkeys(names) for port in node_ports(name, docker=docker)]


def _live_ports(client: ApiClient, docker: bool | None) -> list[NodePort]:
    reported = client.get("/broker/ports")
    if not reported["nodes"]:
        raise CliError(f"the broker lists no nodes: give --node-name  {safe(reported['unknown'])}".rstrip())
    if reported["unknown"]:
        note(f"EMQX's default listeners are assumed where a node does not say: {safe(reported['unknown'])}")
    ports: list[NodePort] = []
    for node in reported["nodes"]:
        listening = None
        if node["listening"] is not None:
            listening = [
                BrokerListener(PortUse(listener["use"]), listener["address"], listener["port"])
                for listener in node["listening"]
            ]
        ports += node_ports(node["node"], docker=docker, listening=listening)
    return ports


def _addresses(ports: Sequence[NodePort], given: Sequence[str]) -> dict[str, str]:
    addresses: dict[str, str] = {}
    for text in given:
        host, separator, address = text.partition("=")
        if not separator or not host or not address:
            raise PortsError(f"{text!r}: --address takes HOST=ADDRESS")
        addresses[host] = address
    for host in {port.host for port in ports} - addresses.keys():
        try:
            addresses[host] = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError):
            continue  # `nftables` reports what is missing
    return addresses


PortReachability = dict[tuple[str, int], bool]


def _probe(ports: Sequence[NodePort]) -> PortReachability:
    from controller.app.offline import probe_ports

    return probe_ports([(port.host, port.port) for port in ports])


def _verdict(port: NodePort, reached: PortReachability) -> str:
    """Empty without a probe; devices' ports may be reached from anywhere, operators' from where Cordon runs."""
    if (port.host, port.port) not in reached:
        return ""
    if not reached[port.host, port.port]:
        return "not reachable"
    if port.peers is not PortPeers.CLUSTER:
        return "reachable"
    return "reachable, by loopback" if is_loopback(port.host) else _TOO_OPEN


def _row(port: NodePort, reached: PortReachability) -> dict[str, Any]:
    row: dict[str, Any] = {"node": port.node, "host": port.host, "port": port.port, "protocol": "tcp"}
    row |= {"use": port.use.value, "peers": port.peers.value, "note": port.note}
    if reached:
        row |= {"reachable": reached.get((port.host, port.port)), "verdict": _verdict(port, reached)}
    return row


def _table(ports: Sequence[NodePort], reached: PortReachability) -> None:
    columns = (*_COLUMNS, "from here") if reached else _COLUMNS
    rows = [
        (port.node, port.host, port.port, port.use.value, port.peers.value, port.note)
        + ((_verdict(port, reached),) if reached else ())
        for port in ports
    ]
    show(OutputFormat.TABLE, ports, columns, rows)
