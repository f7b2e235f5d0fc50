"""A stand-in for EMQX 5.8.9 and 6.3: MQTT on one or more nodes with the part of EMQX's HTTP API that Cordon uses.

`server.StandIn` starts it in the caller's process; `python -m controller.standin` runs it as a process of its own.
Bytes become packets in `frames`, `codec5` and `codec311`; `connection` serves a socket, `connect` handles CONNECT and
`channel` the packets after it. `session` holds a client's queue and subscriptions, `router` delivers messages,
`access`, `authz` and `bans` decide what a client may do, `registry` knows all clients, `release` has what differs
between releases. `api/` is the HTTP API.
It imports nothing of the controller, so that it cannot share the controller's mistakes about EMQX.
"""
