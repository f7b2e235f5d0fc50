"""Decisions of the agent as values: no clock, no I/O.

Incoming commands: command_verifier.py (whether a command may run), verdict.py (the result). Reports: report.py
(full, delta, heartbeat), report_limits.py (size limits), report_outbox.py (pending reports and receipts).
Connections: connection_policy.py (next server, protocol version, wait).
"""
