"""Decisions of the agent as values: no clock, no I/O.

Incoming commands: `command_verifier` (whether a command may run), `verdict` (the result). Reports: `report`
(full, delta, heartbeat), `report_limits` (size limits), `report_outbox` (pending reports and receipts).
Connections: `connection_policy` (next server, protocol version, wait).
"""
