"""`/status`, `/nodes`, `/cluster`, `/listeners`, `/stats`; the status states that this is a stand-in."""

import os
from typing import Any, Final

import psutil

from controller.standin.api.check import bad_request
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response
from controller.standin.options import MAX_CONNECTIONS_PER_NODE
from controller.standin.state import ClusterState, NodeState

EDITION = "Stand-in"  # in EMQX: Opensource or Enterprise
CLUSTER_NAME = "standin"
_NOT_SETTINGS: Final = frozenset({"id", "name", "running", "status", "type"})
_STATS = (
    "channels", "cluster_sessions", "connections", "delayed", "live_connections", "retained", "sessions",
    "suboptions", "subscribers", "subscriptions", "subscriptions.shared", "topics",
)  # fmt: skip


def status(context: RequestContext, request: Request) -> Response:
    """Returns the status of the node; needs no credentials."""
    name = context.node.name
    if request.first("format") == "json":
        return json_response(
            200,
            {
                "node_name": name,
                "cluster": CLUSTER_NAME,
                "broker_status": "started",
                "app_status": "running",
                "rel_vsn": f"v{context.registry.state.release.version}",
                "edition": EDITION,
            },
        )
    body = f"Node {name} is started\nemqx is running\nthis is a stand-in, not EMQX"
    return Response(200, body.encode(), "text/plain")


def _connections(state: ClusterState, node: str | None) -> tuple[int, int]:
    """Returns the numbers of sessions and of connections, of one node or all."""
    clients = [c for c in state.clients.values() if node is None or c.endpoint.node == node]
    return len(clients), sum(1 for c in clients if c.connection is not None)


def _gigabytes(value: int) -> str:
    return f"{value / 1024**3:.2f}G"


def _node_row(state: ClusterState, node: NodeState) -> dict[str, Any]:
    if not node.running:
        return {"node": node.name, "node_status": "stopped", "role": "core"}
    sessions, living = _connections(state, node.name)
    memory = psutil.virtual_memory()
    load = os.getloadavg()
    return {
        "cluster_sessions": len(state.clients),
        "connections": sessions,
        "edition": EDITION,
        "live_connections": living,
        "load1": round(load[0], 2),
        "load5": round(load[1], 2),
        "load15": round(load[2], 2),
        "log_path": "log.file.enable is false, not logging to file.",
        "max_fds": MAX_CONNECTIONS_PER_NODE,
        "memory_total": _gigabytes(memory.total),
        "memory_used": _gigabytes(memory.total - memory.available),
        "node": node.name,
        "node_status": "running",
        "otp_release": "none (stand-in)",
        "process_available": 0,
        "process_used": 0,
        "role": "core",
        "sys_path": "none (stand-in)",
        "uptime": int((state.now() - node.started_at) * 1000),
        "version": state.version_overrides.get(node.name, state.release.version),
    }


def nodes(context: RequestContext, _request: Request) -> Response:
    """Lists all nodes, including stopped ones."""
    state = context.registry.state
    return json_response(200, [_node_row(state, node) for node in state.nodes.values()])


def node(context: RequestContext, request: Request) -> Response:
    """Returns a node."""
    state = context.registry.state
    known = state.nodes.get(request.bindings["node"])
    if known is None:
        raise bad_request("Invalid node name")
    return json_response(200, _node_row(state, known))


def cluster(context: RequestContext, _request: Request) -> Response:
    """Returns the running nodes, and the node that received the request."""
    state = context.registry.state
    row = {"name": CLUSTER_NAME, "nodes": state.running_nodes(), "self": context.node.name, **state.release.cluster}
    return json_response(200, row)


def _address(node: NodeState, kind: str) -> tuple[str, int] | None:
    return node.tls if kind == "ssl" else node.mqtt


def _listener_row(state: ClusterState, kind: str, asked: NodeState) -> dict[str, Any] | None:
    running = [n for n in state.nodes.values() if n.running and _address(n, kind) is not None]
    if not running:
        return None
    per_node = [
        {"node": n.name, "status": _listener_status(_live_connections(state, kind, n.name))} for n in reversed(running)
    ]
    host, port = _address(asked, kind) or ("", 0)
    return {
        "acceptors": 1,
        "bind": f"{host}:{port}",
        "enable": True,
        "id": f"{kind}:default",
        "name": "default",
        "node_status": per_node,
        "number": len(running),
        "status": _listener_status(_live_connections(state, kind, None)),
        "type": kind,
    }


def _live_connections(state: ClusterState, kind: str, node: str | None) -> int:
    listener_id = f"{kind}:default"
    connected = [c for c in state.clients.values() if c.connection is not None and c.endpoint.listener == listener_id]
    return sum(node is None or c.endpoint.node == node for c in connected)


def _listener_status(connections: int) -> dict[str, object]:
    return {"current_connections": connections, "max_connections": "infinity", "running": True}


def listeners(context: RequestContext, _request: Request) -> Response:
    """Lists the MQTT listeners."""
    state = context.registry.state
    rows = [_listener_row(state, kind, context.node) for kind in ("ssl", "tcp")]
    return json_response(200, [_with_overrides(state, row) for row in rows if row is not None])


def _with_overrides(state: ClusterState, row: dict[str, Any], *, add_keys: bool = False) -> dict[str, Any]:
    """Applies the configured overrides of a listener; without `add_keys`, only to existing keys."""
    configured = state.listener_overrides.get(row["id"], {})
    overrides = {key: value for key, value in configured.items() if add_keys or key in row}
    ssl_options = {**row.get("ssl_options", {}), **overrides.get("ssl_options", {})}
    return {**row, **overrides, **({"ssl_options": ssl_options} if ssl_options else {})}


def listener_detail(state: ClusterState, row: dict[str, Any]) -> dict[str, Any]:
    """Returns a listener with its own settings and those of TLS."""
    shown: dict[str, Any] = {
        "acceptors": 1,
        "access_rules": ["allow all"],
        "bind": row["bind"],
        "enable": True,
        "enable_authn": True,
        "id": row["id"],
        "max_connections": "infinity",
        "mountpoint": "",
        "name": "default",
        "proxy_protocol": False,
        "running": True,
        "status": row["status"],
        "type": row["type"],
        "zone": "default",
    }
    if row["type"] == "ssl":
        shown["ssl_options"] = {
            "depth": 10,
            "enable_crl_check": False,
            "fail_if_no_peer_cert": True,
            "ocsp": {"enable_ocsp_stapling": False},
            "secure_renegotiate": True,
            "verify": "verify_peer",
            "versions": ["tlsv1.3", "tlsv1.2"],
        }
    return _with_overrides(state, shown, add_keys=True)


def listener(context: RequestContext, request: Request) -> Response:
    """Returns a listener with its TLS options; `enable_crl_check` is false, the stand-in checks no CRLs."""
    state = context.registry.state
    kind, _, name = request.bindings["id"].partition(":")
    row = _listener_row(state, kind, context.node) if kind in ("tcp", "ssl") and name == "default" else None
    if row is None:
        raise ApiError(404, "NOT_FOUND", "Listener id not found")
    return json_response(200, listener_detail(state, row))


def listeners_section(context: RequestContext) -> dict[str, dict[str, Any]]:
    """Returns the section `listeners` of the configuration: by kind and name, without what is measured."""
    section: dict[str, dict[str, Any]] = {}
    for kind in ("ssl", "tcp"):
        row = _listener_row(context.registry.state, kind, context.node)
        if row is not None:
            detail = listener_detail(context.registry.state, row)
            settings = {key: value for key, value in detail.items() if key not in _NOT_SETTINGS}
            section[kind] = {"default": settings}
    return section


def _counts(context: RequestContext, node: str | None) -> dict[str, int]:
    state = context.registry.state
    clients = [c for c in state.clients.values() if node is None or c.endpoint.node == node]
    subscriptions = [p for c in clients for p in c.session.subscriptions]
    living = sum(1 for c in clients if c.connection is not None)
    values = {
        "channels": len(clients),
        "cluster_sessions": len(state.clients),
        "connections": len(clients),
        "delayed": context.registry.router.delayed,
        "live_connections": living,
        "retained": len(context.registry.router.retained),
        "sessions": len(clients),
        "suboptions": len(subscriptions),
        "subscribers": len(subscriptions),
        "subscriptions": len(subscriptions),
        "subscriptions.shared": sum(1 for p in subscriptions if p.group is not None),
        "topics": len({p.filter for p in subscriptions}),
        "routes": len({p.filter for p in subscriptions}),
    }
    # The stand-in keeps no history: the maximum is the current value.
    return {f"{name}.{part}": values[name] for name in (*_STATS, *state.release.stats) for part in ("count", "max")}


def stats(context: RequestContext, request: Request) -> Response:
    """Returns the counts of the cluster, or of each node."""
    if request.first("aggregate") == "true":
        return json_response(200, _counts(context, None))
    running = context.registry.state.running_nodes()
    return json_response(200, [{"node": name, **_counts(context, name)} for name in running])


ROUTES = (
    Route("/status", {"GET": status}, open=True),
    Route("/api/v5/status", {"GET": status}, open=True),
    Route("/api/v5/nodes", {"GET": nodes}),
    Route("/api/v5/nodes/:node", {"GET": node}),
    Route("/api/v5/cluster", {"GET": cluster}),
    Route("/api/v5/listeners", {"GET": listeners}),
    Route("/api/v5/listeners/:id", {"GET": listener}),
    Route("/api/v5/stats", {"GET": stats}),
)
